# What `make demo` and `make test` install on Debian, and what helps while writing.
{ pkgs }:
pkgs.mkShell {
  packages = with pkgs; [ go gopls git gnumake nix skopeo umoci ]
    ++ pkgs.lib.optional pkgs.stdenv.hostPlatform.isLinux pkgs.pkgsStatic.busybox;
  env.CGO_ENABLED = 0;
}
