# For flake-parts: imports = [ inputs.flakeship.flakeModules.default ]; then, in perSystem,
#
#   flakeship.images = { api = …; web = …; };
#   flakeship.objects = image: [ … image.api … ];
#
# adds the images and, as `manifests`, the objects to packages.
flakeship:
{ lib, flake-parts-lib, ... }:
{
  options.perSystem = flake-parts-lib.mkPerSystemOption ({ config, pkgs, ... }:
    let cfg = config.flakeship; in
    {
      options.flakeship = {
        images = lib.mkOption {
          type = lib.types.lazyAttrsOf lib.types.package;
          default = { };
          description = "Container images of this repository, by attribute name.";
        };
        objects = lib.mkOption {
          type = lib.types.nullOr (lib.types.functionTo (lib.types.listOf lib.types.attrs));
          default = null;
          description = "Kubernetes objects, given the reference of each image by attribute name.";
        };
      };
      config.packages = flakeship.lib.images cfg.images // lib.optionalAttrs (cfg.objects != null) {
        manifests = flakeship.lib.manifests { inherit pkgs; inherit (cfg) images objects; };
      };
    });
}
