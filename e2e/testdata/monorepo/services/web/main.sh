# The shop's pages.
NAME=web
. @common@/share/shop.sh

serve() {
  log "listening on ${PORT:-8080}"
  exec httpd -f -p "${PORT:-8080}" -h @share@/www
}

check() {
  printf 'GET / HTTP/1.0\r\n\r\n' | httpd -i -h @share@/www | grep -q '<h1>'
}

main "$@"
