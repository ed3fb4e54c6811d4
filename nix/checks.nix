# What `nix flake check` runs. The whole suite is `make test`: it starts a control plane, a registry and Nix itself, which a
# build sandbox has no room for.
{ pkgs, programs }:
let
  inherit (pkgs) lib;
  flakeship = pkgs.callPackage ./package.nix { };

  # The sources and their dependencies, with another thing to do than to install binaries.
  inSource = name: tools: script: flakeship.overrideAttrs (old: {
    pname = "flakeship-${name}";
    nativeBuildInputs = old.nativeBuildInputs ++ tools;
    buildPhase = script;
    installPhase = "touch $out";
    doCheck = false;
  });
in
{
  package = flakeship;

  vet = inSource "vet" [ ] ''
    test -z "$(gofmt -l cmd internal)"
    go vet ./...
  '';

  # Packages whose tests need nothing but Go.
  unit = inSource "unit" [ ] ''
    go test ./internal/image ./internal/manifest ./internal/narinfo ./internal/registry ./internal/resolve \
      ./internal/storepath ./internal/testenv/imagetool ./internal/transport
  '';

  # A runner may have no C library, or another one: nothing is linked at run time.
  static = pkgs.runCommand "flakeship-static" { nativeBuildInputs = [ pkgs.file ]; } ''
    for program in ${lib.escapeShellArgs programs}; do
      ${flakeship}/bin/$program --help > /dev/null
      ${lib.optionalString pkgs.stdenv.hostPlatform.isLinux ''
        file ${flakeship}/bin/$program | grep -q 'statically linked'
      ''}
    done
    touch $out
  '';
}
