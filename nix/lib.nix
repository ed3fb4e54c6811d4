# Helpers for flakes that flakeship ships. Pure functions over what they are given; nothing of nixpkgs.
let
  inherit (builtins) attrNames concatStringsSep filter head isAttrs isFunction isList length mapAttrs toJSON;

  nameOf = attribute: image:
    if !(isAttrs image && (image.type or "") == "derivation") then
      throw "flakeship: images.${attribute} is no derivation"
    else
      image.imageName or (throw "flakeship: images.${attribute} has no imageName: dockerTools and nix2container set it on what they build");
in
rec {
  # images { api = <image>; web = <image>; }: the same set, for `packages.<system>`. Each must be a container image, and two of
  # them may not be pushed to one name: that is said here, with the attributes' names, and not by a runner.
  images = set:
    let
      names = mapAttrs nameOf set;
      same = attribute: filter (other: names.${other} == names.${attribute}) (attrNames set);
      unique = attribute: image:
        let others = filter (other: set.${other}.drvPath != image.drvPath) (same attribute); in
        if others == [ ] then image
        else throw "flakeship: images.${attribute} and images.${head others} are both called ${names.${attribute}}";
    in
    mapAttrs unique set;

  # references { api = <image>; }: what a manifest says for each image, { api = "flakeship:api"; }. deploy-manifests puts the
  # digest that was pushed in its place.
  references = set: mapAttrs (attribute: image: "flakeship:${nameOf attribute image}") set;

  # manifests { inherit pkgs images; objects = image: [ { kind = "Deployment"; … image = image.api; … } ]; }: a derivation with
  # the objects as one Kubernetes List. An image that was renamed or removed is an evaluation error at the line that names it.
  manifests = { pkgs, images, objects, name ? "manifests" }:
    let
      made = if isFunction objects then objects (references images) else objects;
      items = if isList made then made else throw "flakeship: objects of ${name} is no list";
      bad = filter (o: !(isAttrs o && o ? apiVersion && o ? kind)) items;
    in
    if bad != [ ] then
      throw "flakeship: ${toString (length bad)} objects of ${name} have no apiVersion or kind: ${concatStringsSep ", " (map toJSON bad)}"
    else
      pkgs.writeText "${name}.json" (toJSON { apiVersion = "v1"; kind = "List"; inherit items; });
}
