{
  description = "Three services, one repository, one pipeline";

  inputs = {
    nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";
    nix2container.url = "github:nlewo/nix2container";
    nix2container.inputs.nixpkgs.follows = "nixpkgs";
  };

  outputs = { nixpkgs, nix2container, ... }:
    let
      systems = [ "x86_64-linux" "aarch64-linux" ];
      perSystem = f: nixpkgs.lib.genAttrs systems (system: f {
        pkgs = nixpkgs.legacyPackages.${system};
        nix2container = nix2container.packages.${system}.nix2container;
      });
    in
    {
      # Every package that is a container image is found by its imageName; nothing has to be listed anywhere else.
      packages = perSystem ({ pkgs, nix2container }: rec {
        default = greeter;
        greeter = import ./services/greeter { inherit pkgs; };
        counter = import ./services/counter { inherit pkgs nix2container; };
        pages = import ./services/pages { inherit pkgs; };
      });

      devShells = perSystem ({ pkgs, ... }: {
        default = pkgs.mkShell { packages = with pkgs; [ go cargo rustc clippy kubectl ]; };
      });
    };
}
