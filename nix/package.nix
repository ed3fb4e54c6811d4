# The four binaries, static, built as a release builds them: with its `version`, its source `commit` and its Go, the bytes are those of dist/.
{ lib, buildGoModule, version ? "dev", commit ? "" }:
buildGoModule {
  pname = "flakeship";
  inherit version;

  src = lib.fileset.toSource {
    root = ../.;
    fileset = lib.fileset.unions [ ../go.mod ../go.sum ../cmd ../internal ];
  };
  # Written by nix/vendor-hash.sh whenever go.mod or go.sum changes.
  vendorHash = lib.fileContents ./vendor-hash;

  subPackages = [ "cmd/nix-cache-check" "cmd/nix-build-images" "cmd/push-images" "cmd/deploy-manifests" ];
  env.CGO_ENABLED = 0;
  ldflags = [
    "-s"
    "-w"
    "-X github.com/flakeship/flakeship/internal/action.Version=${version}"
    "-X github.com/flakeship/flakeship/internal/action.Commit=${commit}"
  ];
  doCheck = false; # the tests want a Nix of their own and files outside src: see checks.nix and make test

  meta = {
    description = "Check, build, push and deploy the container images of a Nix monorepo";
    license = lib.licenses.asl20;
    mainProgram = "nix-cache-check";
  };
}
