{
  description = "From a commit of a Nix monorepo to a running Kubernetes cluster, in four actions";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs = { nixpkgs, ... }: import ./nix { inherit nixpkgs; };
}
