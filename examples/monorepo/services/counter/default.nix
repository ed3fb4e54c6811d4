# A Rust service with nix2container: what rarely changes is a layer of its own, and no tar is ever kept in the store.
{ pkgs, nix2container }:
let
  inherit (pkgs) lib;

  source = lib.fileset.toSource {
    root = ./.;
    fileset = lib.fileset.unions [ ./Cargo.toml ./Cargo.lock ./src ];
  };

  counter = pkgs.rustPlatform.buildRustPackage {
    pname = "counter";
    version = "1.0.0";
    src = source;
    cargoLock.lockFile = ./Cargo.lock;
    meta.mainProgram = "counter";
  };
in
nix2container.buildImage {
  name = "counter";
  layers = [ (nix2container.buildLayer { deps = [ pkgs.glibc ]; }) ];
  config = {
    Entrypoint = [ (lib.getExe counter) ];
    ExposedPorts."8080/tcp" = { };
    User = "65534:65534";
  };
}
