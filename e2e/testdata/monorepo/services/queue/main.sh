# Orders wait here, one file each. It speaks just enough HTTP: GET /put?tea+2 and GET /take.
NAME=queue
. @common@/share/shop.sh

dir=${DATA_DIR:-/tmp/queue}

serve() {
  mkdir -p "$dir"
  log "listening on ${PORT:-7000}, orders in $dir"
  exec tcpsvd 0.0.0.0 "${PORT:-7000}" "$0" --session
}

session() {
  read -r _ path _
  printf 'HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n'
  case $path in
    /put\?*) echo "${path#*\?}" | tr + ' ' > "$(mktemp "$dir/order.XXXXXX")" ;;
    /take) for order in "$dir"/order.*; do test -e "$order" && cat "$order" && rm "$order"; done ;;
  esac
}

check() {
  dir=$(mktemp -d)
  reply=$(echo 'GET /put?tea+2 HTTP/1.0' | session)
  test "${reply%%200*}" = 'HTTP/1.0 '
  echo 'GET /take HTTP/1.0' | session | grep -q '^tea 2$'
  rm -r "$dir"
}

test "${1-}" != --session || { session; exit; }
main "$@"
