# A Go service as a stream: the store holds a script, not another copy of the closure.
{ pkgs }:
let
  inherit (pkgs) lib;

  # Only what the build reads. A README changed, or another service, does not make a new image.
  source = lib.fileset.toSource {
    root = ./.;
    fileset = lib.fileset.unions [ ./go.mod (lib.fileset.fileFilter (file: file.hasExt "go") ./.) ];
  };

  greeter = pkgs.buildGoModule {
    pname = "greeter";
    version = "1.0.0";
    src = source;
    vendorHash = null; # no dependencies
    env.CGO_ENABLED = 0;
    ldflags = [ "-s" "-w" ];
    meta.mainProgram = "greeter";
  };
in
pkgs.dockerTools.streamLayeredImage {
  name = "greeter";
  config = {
    Entrypoint = [ (lib.getExe greeter) ];
    ExposedPorts."8080/tcp" = { };
    User = "65534:65534";
  };
}
