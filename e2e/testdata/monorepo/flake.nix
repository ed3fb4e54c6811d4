{
  description = "A shop in seven small services";

  # No inputs: tools/busybox and tools/imagetool, both static, are all that the builds need. They are not part of this
  # folder; whoever makes a repository of it puts them there (see README.md).
  outputs = { self }:
    let
      each = f: builtins.listToAttrs (map (system: { name = system; value = f system; }) [ "x86_64-linux" "aarch64-linux" ]);
    in
    {
      packages = each (system: import ./services { lib = import ./lib { inherit system; tools = ./tools; }; });
    };
}
