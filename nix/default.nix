{ nixpkgs }:
let
  inherit (nixpkgs) lib;
  perSystem = f: lib.genAttrs [ "x86_64-linux" "aarch64-linux" "aarch64-darwin" ] (system: f nixpkgs.legacyPackages.${system});
  flakeship = { lib = import ./lib.nix; };
  programs = [ "nix-cache-check" "nix-build-images" "push-images" "deploy-manifests" ];
in
{
  packages = perSystem (pkgs: rec {
    flakeship = pkgs.callPackage ./package.nix { };
    default = flakeship;
  });

  # nix run .#push-images -- --help
  apps = perSystem (pkgs:
    let flakeship = pkgs.callPackage ./package.nix { };
    in lib.genAttrs programs (name: { type = "app"; program = "${flakeship}/bin/${name}"; }));

  checks = perSystem (pkgs: import ./checks.nix { inherit pkgs programs; });

  overlays.default = final: _: { flakeship = final.callPackage ./package.nix { }; };

  # lib.images, lib.references, lib.manifests: see lib.nix.
  inherit (flakeship) lib;
  flakeModules.default = import ./flake-module.nix flakeship;
  nixosModules.default = ./nixos-module.nix;

  devShells = perSystem (pkgs: { default = import ./devshell.nix { inherit pkgs; }; });
}
