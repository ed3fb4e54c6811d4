# The little of nixpkgs that this repository needs, under nixpkgs' names.
{ system, tools }:
rec {
  # A store path of its own for one tool: a new imagetool does not rebuild what busybox makes.
  tool = name: builtins.path {
    inherit name;
    path = tools;
    filter = path: type: baseNameOf path == name;
  } + "/${name}";

  # A source folder of its own. Plain ./services/api would be a part of the whole repository's store path, and every commit
  # would rebuild everything.
  source = name: path: builtins.path { inherit path; name = "${name}-src"; };

  busybox = derivation {
    name = "busybox";
    inherit system;
    builder = tool "busybox";
    args = [
      "sh"
      "-euc"
      ''
        $builder mkdir -p $out/bin
        $builder cp $builder $out/bin/busybox
        for applet in $applets; do $builder ln -s busybox $out/bin/$applet; done
      ''
    ];
    applets = [
      "ash" "awk" "basename" "cat" "chmod" "cp" "cut" "date" "dirname" "echo" "env" "grep" "head" "hostname" "httpd" "id" "ln" "ls"
      "mkdir" "mktemp" "mv" "printf" "rm" "sed" "seq" "sh" "sha256sum" "sleep" "sort" "tail" "tcpsvd" "test" "touch" "tr" "uname"
      "wc" "wget"
    ];
  };

  runCommand = name: env: script: derivation ({
    inherit name system;
    builder = "${busybox}/bin/sh";
    args = [ "-euc" script ];
    PATH = "${busybox}/bin";
  } // env);

  writeText = name: text: runCommand name { inherit text; preferLocalBuild = true; } ''printf %s "$text" > $out'';

  # A derivation that imagetool builds: `spec` is what the command takes, `closure` the store paths whose closure it is given.
  imagetool = name: command: { spec, closure ? [ ], ... }@attrs: derivation (removeAttrs attrs [ "closure" ] // {
    inherit name system;
    builder = tool "imagetool";
    args = [ command ];
    __structuredAttrs = true;
    exportReferencesGraph.graph = closure;
  });

  goarch = { x86_64-linux = "amd64"; aarch64-linux = "arm64"; }.${system};

  toList = x: if x == null then [ ] else if builtins.isList x then x else [ x ];
  letters = text: builtins.genList (i: builtins.substring i 1 text) (builtins.stringLength text);
  toLower = builtins.replaceStrings (letters "ABCDEFGHIJKLMNOPQRSTUVWXYZ") (letters "abcdefghijklmnopqrstuvwxyz");
  # What an image is tagged with when its author gave no tag.
  hashOf = drv: builtins.substring 0 32 (baseNameOf drv.outPath);

  dockerTools = import ./docker-tools.nix lib;
  nix2container = import ./nix2container.nix lib;
  lib = { inherit busybox runCommand writeText imagetool tool goarch toList toLower hashOf; };
}
