# Applied to a flake's `packages`. Each answer is a line of its own on standard error, as soon as it is known: an error of the next
# attribute ends the process, and must not take with it what was found.
packages:
let
  query = builtins.fromJSON QUERY;

  matches = patterns: system: name:
    builtins.any
      (re: builtins.match re name != null || builtins.match re "packages.${system}.${name}" != null)
      patterns;
  selected = system: name:
    (query.include == [ ] || matches query.include system name)
    && !(matches query.exclude system name);

  # Without its context: the answer is about paths, not a reason to build them.
  text = value: if builtins.isString value then builtins.unsafeDiscardStringContext value else "";
  endsIn = suffix: name:
    let
      n = builtins.stringLength name;
      s = builtins.stringLength suffix;
    in
    n >= s && builtins.substring (n - s) s name == suffix;

  describe = value:
    if !(builtins.isAttrs value && (value.type or "") == "derivation" && value ? imageName) then
      { image = false; }
    else {
      image = true;
      drv = text value.drvPath;
      out = text value.outPath;
      system = text value.system;
      imageName = text value.imageName;
      imageTag = text (value.imageTag or "");
      isExe = (value.isExe or false) == true;
      nix2container = value ? imageRefUnsafe || value ? copyToRegistry || endsIn ".json" value.name;
    };
  # tryEval catches throw and assert, and keeps the message to itself.
  careful = value:
    let tried = builtins.tryEval (builtins.deepSeq value value);
    in if tried.success then tried.value else { failed = true; };

  say = answer: builtins.trace (query.mark + builtins.toJSON answer);

  # The names of each system come first. null: the flake has no such system.
  ofSystem = system:
    let names = if packages ? ${system} then builtins.attrNames packages.${system} else null;
    in say { inherit system names; }
      (map (name: { inherit system name; }) (if names == null then [ ] else builtins.filter (selected system) names));
  attributes = if query ? attributes then query.attributes else builtins.concatLists (map ofSystem query.systems);

  look = { system, name }:
    say
      {
        attribute = { inherit system name; };
        found = (if query.careful then careful else (x: x)) (describe packages.${system}.${name});
      }
      true;
in
builtins.foldl' (_: look) true (builtins.deepSeq attributes attributes)
