# The four binaries, static, as a release ships them: nix build, with `version` the tag, gives the bytes of dist/ again.
{ lib, buildGoModule, version ? "dev" }:
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
  ldflags = [ "-s" "-w" "-X github.com/flakeship/flakeship/internal/action.Version=${version}" ];
  doCheck = false; # the tests want a Nix of their own and files outside src: see checks.nix and make test

  meta = {
    description = "Check, build, push and deploy the container images of a Nix monorepo";
    license = lib.licenses.asl20;
    mainProgram = "nix-cache-check";
  };
}
