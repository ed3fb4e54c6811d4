# A folder of pages behind a small web server, as one compressed archive that `docker load` takes as well.
{ pkgs }:
let
  inherit (pkgs) lib;
  pages = lib.fileset.toSource { root = ./.; fileset = lib.fileset.fileFilter (file: file.hasExt "html") ./.; };
in
pkgs.dockerTools.buildLayeredImage {
  name = "pages";
  config = {
    Entrypoint = [ (lib.getExe' pkgs.darkhttpd "darkhttpd") "${pages}" "--port" "8080" ];
    ExposedPorts."8080/tcp" = { };
    User = "65534:65534";
  };
}
