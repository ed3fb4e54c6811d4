# dockerTools, as far as this repository uses it: the same arguments, derivations and passed-through attributes.
{ busybox, runCommand, writeText, imagetool, tool, goarch, toList, toLower, hashOf }:
let
  extensions = { none = ""; gz = ".gz"; zstd = ".zst"; };
  emptyIfNull = x: if x == null then "" else x;
in
rec {
  # A docker-archive with one layer on top of those of `fromImage`.
  buildImage =
    { name, tag ? null, fromImage ? null, copyToRoot ? null, config ? { }, created ? "1970-01-01T00:00:01Z", compressor ? "gz" }:
    let
      baseName = baseNameOf name;
      base = { inherit created config; architecture = goarch; preferLocalBuild = true; os = "linux"; };
      baseJson = writeText "${baseName}-config.json" (builtins.toJSON base);
      result = imagetool "docker-image-${baseName}.tar${extensions.${compressor}}" "archive" {
        imageName = toLower name;
        copyToRoot = toList copyToRoot; # upstream it is an attribute of the layer's derivation
        closure = [ baseJson ] ++ toList copyToRoot;
        spec = {
          inherit compressor;
          name = toLower name;
          tag = emptyIfNull tag;
          baseJson = base;
          layer = baseJson;
          copyToRoot = toList copyToRoot;
          fromImage = emptyIfNull fromImage;
        };
      };
    in
    result // { imageTag = if tag != null then tag else hashOf result; };

  # A script that prints a docker-archive with one layer for each store path.
  streamLayeredImage =
    { name, tag ? null, fromImage ? null, contents ? [ ], config ? { }, created ? "1970-01-01T00:00:01Z", mtime ? created, maxLayers ? 100 }:
    let
      baseName = baseNameOf name;
      base = { inherit config; architecture = goarch; os = "linux"; };
      baseJson = writeText "${baseName}-base.json" (builtins.toJSON base);
      customisationLayer = imagetool "${baseName}-customisation-layer" "customisation" {
        spec.contents = toList contents;
      };
      conf = imagetool "${baseName}-conf.json" "conf" {
        closure = [ baseJson customisationLayer ] ++ toList contents;
        preferLocalBuild = true;
        spec = {
          inherit base created mtime maxLayers customisationLayer fromImage;
          name = toLower name;
          tag = emptyIfNull tag;
          exclude = [ baseJson customisationLayer ];
        };
      };
      # Known by its name: see imagetool.
      stream = runCommand "stream" { } "cp ${tool "imagetool"} $out";
      # The text is makeWrapper's, blanks and all.
      result = runCommand "stream-${baseName}" { imageName = toLower name; preferLocalBuild = true; } ''
        printf '#! %s -e\nexec "%s"  %s "$@" \n' ${busybox}/bin/sh ${stream} ${conf} > $out
        chmod +x $out
      '';
    in
    result // {
      # The tag is the hash of conf.json: the script is not part of the image.
      imageTag = if tag != null then tag else hashOf conf;
      isExe = true;
    };

  # What the script prints, compressed.
  buildLayeredImage = { name, compressor ? "gz", ... }@args:
    let
      stream = streamLayeredImage (removeAttrs args [ "compressor" ]);
    in
    runCommand "${baseNameOf name}.tar${extensions.${compressor}}" { inherit (stream) imageName; }
      "${stream} | ${tool "imagetool"} compress ${compressor} > $out"
    // { inherit (stream) imageTag; inherit stream; };
}
