{ lib }:
let
  inherit (lib) busybox dockerTools nix2container runCommand source;

  # What every service is built on: a shell library, and the files that programs expect at /.
  common = runCommand "shop-common-1.0" { src = source "common" ./common; } ''
    mkdir -p $out/share
    sed "s|@busybox@|${busybox}|g" $src/shop.sh > $out/share/shop.sh
  '';
  rootfs = runCommand "shop-rootfs" { src = source "rootfs" ./rootfs; } ''
    mkdir -p $out/bin $out/tmp $out/etc
    cp $src/etc/* $out/etc/
    ln -s ${busybox}/bin/sh $out/bin/sh
    ln -s ${common}/share/shop.sh $out/etc/shop.sh
  '';

  # A program and its data. It depends on its own folder alone, so a change there changes this service and no other.
  program = name: folder: runCommand "${name}-1.0" { pname = name; src = source name folder; } ''
    mkdir -p $out/bin $out/share/$pname
    cp -r $src/* $out/share/$pname/
    rm $out/share/$pname/main.sh
    { echo "#!${busybox}/bin/sh -eu"; cat $src/main.sh; } |
      sed -e "s|@common@|${common}|g" -e "s|@share@|$out/share/$pname|g" > $out/bin/$pname
    chmod +x $out/bin/$pname
  '';
  # An image's configuration.
  runs = name: folder: {
    Entrypoint = [ "${program name folder}/bin/${name}" ];
    Env = [ "SERVICE=${name}" "TZ=UTC" ];
    User = "1000:1000";
    WorkingDir = "/tmp";
  };
  listensOn = port: config: config // { ExposedPorts."${toString port}/tcp" = { }; };

  # Layers that several images share. Each family has its own way: a base image, a layer for each store path, a named layer.
  base = dockerTools.buildImage { name = "shop-base"; copyToRoot = rootfs; };
  shared = nix2container.buildLayer { deps = [ busybox common ]; maxLayers = 2; };
  tmpForAll = [{ path = rootfs; regex = "/tmp$"; mode = "1777"; }];
in
rec {
  default = web;

  api = dockerTools.streamLayeredImage {
    name = "api";
    contents = [ rootfs ];
    config = listensOn 8080 (runs "api" ./api);
  };
  web = dockerTools.buildLayeredImage {
    name = "web";
    contents = [ rootfs ];
    config = listensOn 8080 (runs "web" ./web);
  };

  worker = nix2container.buildImage {
    name = "worker";
    layers = [ shared ];
    copyToRoot = rootfs;
    perms = tmpForAll;
    config = runs "worker" ./worker;
  };
  queue = nix2container.buildImage {
    name = "queue";
    # Kept as a tar, as for content that another build would not make again.
    layers = [ shared (nix2container.buildLayer { copyToRoot = rootfs; perms = tmpForAll; layers = [ shared ]; reproducible = false; }) ];
    config = listensOn 7000 (runs "queue" ./queue);
    created = "2026-01-01T00:00:00Z";
  };

  agent = dockerTools.buildImage {
    name = "agent";
    fromImage = base;
    config = listensOn 9100 (runs "agent" ./agent);
    compressor = "zstd";
  };
  report = dockerTools.buildImage {
    name = "report";
    tag = "2026.1";
    fromImage = base;
    config = runs "report" ./report;
    compressor = "none";
  };
  migrate = dockerTools.buildImage {
    name = "migrate";
    fromImage = base;
    config = runs "migrate" ./migrate;
  };

  # Not an image: a tool for the people who look after the shop.
  shopctl = program "shopctl" ./shopctl;
}
