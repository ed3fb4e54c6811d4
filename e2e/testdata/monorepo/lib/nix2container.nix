# nix2container, as far as this repository uses it: the same arguments, derivations and passed-through attributes.
{ busybox, runCommand, writeText, imagetool, tool, goarch, toList, toLower, hashOf }:
let
  # runCommandLocal's: such an image is built where it is needed, even when a cache has it.
  local = { preferLocalBuild = true; allowSubstitutes = false; };
in
rec {
  buildLayer =
    { deps ? [ ], copyToRoot ? null, ignore ? null, layers ? [ ], reproducible ? true, perms ? [ ], maxLayers ? 1
    , metadata ? { created_by = "nix2container"; }
    }:
    imagetool "layers.json" "layers" (local // {
      closure = deps ++ toList copyToRoot;
      spec = {
        inherit layers reproducible maxLayers metadata perms;
        copyToRoot = toList copyToRoot;
        ignore = if ignore == null then "" else ignore;
      };
    })
    // { nestedLayers = builtins.concatMap (l: l.nestedLayers) layers ++ layers; };

  buildImage =
    { name, tag ? null, config ? { }, layers ? [ ], copyToRoot ? null, perms ? [ ], maxLayers ? 1, created ? "0001-01-01T00:00:00Z" }:
    let
      configFile = writeText "config.json" (builtins.toJSON config);
      customizationLayer = buildLayer {
        inherit copyToRoot perms maxLayers layers;
        deps = [ configFile ];
        ignore = configFile;
      };
      imageName = toLower name;
      imageTag = if tag != null then tag else hashOf image;
      image = imagetool "image-${baseNameOf name}.json" "image" (local // {
        spec = {
          inherit created;
          arch = goarch;
          config = configFile;
          layers = builtins.concatMap (l: l.nestedLayers) layers ++ layers ++ [ customizationLayer ];
        };
      });
    in
    image // {
      inherit imageName imageTag;
      imageRefUnsafe = builtins.unsafeDiscardStringContext "${imageName}:${imageTag}";
    };
}
