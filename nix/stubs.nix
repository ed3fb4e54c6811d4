# As much of nixpkgs as the modules beside this file use, for tests without it. What an option is set to, or else its default, is
# the configuration; types are names, checked by nobody.
rec {
  lib = {
    types = {
      str = "string"; path = "path"; bool = "boolean"; package = "package"; attrs = "attributes";
      listOf = type: "list of ${type}"; nullOr = type: "null or ${type}"; lazyAttrsOf = type: "attributes of ${type}"; functionTo = type: "function to ${type}";
    };
    mkOption = option: { isOption = true; } // option;
    mkEnableOption = description: lib.mkOption { type = lib.types.bool; default = false; inherit description; };
    mkIf = condition: value: if condition then value else { };
    optionalAttrs = condition: value: if condition then value else { };
    escapeShellArg = text: "'${text}'";
  };
  pkgs = {
    writeText = name: text: derivation { inherit name text; system = "x86_64-linux"; builder = "/bin/sh"; };
    writeShellScript = name: text: "#! ${name}\n${text}";
    bash = "bash"; coreutils = "coreutils"; curl = "curl"; gawk = "gawk"; git = "git"; gnused = "gnused"; gnutar = "gnutar"; gzip = "gzip"; nodejs = "nodejs";
  };

  # values options given: the given values over the defaults. A value of no option is an error; so is, when it is used, an option
  # without a value.
  values = options: given:
    let unknown = builtins.filter (name: !(options ? ${name})) (builtins.attrNames given); in
    if unknown != [ ] then throw "there is no option ${builtins.head unknown}"
    else
      builtins.mapAttrs
        (name: option:
          if option ? isOption then given.${name} or option.default or (throw "option ${name} has no value")
          else values option (given.${name} or { }))
        options;
}
