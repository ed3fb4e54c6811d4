# Applied to a flake's `packages`. One process looks at every attribute of every system that was asked for.
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
  # tryEval catches throw and assert; any other error ends the process, and the caller takes smaller parts.
  careful = value:
    let tried = builtins.tryEval (builtins.deepSeq value value);
    in if tried.success then tried.value else { failed = true; };

  answer = system: names: {
    inherit system names;
    images =
      if names == null then { }
      else builtins.listToAttrs (map
        (name: { inherit name; value = (if query.careful then careful else (x: x)) (describe packages.${system}.${name}); })
        (builtins.filter (selected system) names));
  };
in
map
  (part: answer part.system
    (if part ? names then part.names
    else if packages ? ${part.system} then builtins.attrNames packages.${part.system}
    else null))
  query.parts
