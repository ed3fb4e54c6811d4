# What a node is doing, for those who watch: one page of numbers, made anew every few seconds.
NAME=agent
. @common@/share/shop.sh

metrics() {
  read -r one _ < /proc/loadavg
  echo "node_load1 $one"
  awk '/^MemTotal|^MemAvailable/ { sub(":", "", $1); print "node_" tolower($1) "_kb " $2 }' /proc/meminfo
}

serve() {
  www=$(mktemp -d)
  chmod 755 "$www"
  httpd -p "${PORT:-9100}" -h "$www"
  log "listening on ${PORT:-9100}"
  while :; do
    metrics > "$www/metrics.new" && mv "$www/metrics.new" "$www/metrics"
    sleep "${INTERVAL:-5}"
  done
}

check() {
  # A container without /proc has nothing to tell.
  test ! -e /proc/loadavg || metrics | grep -q '^node_load1 '
  grep -q node_load1 @share@/help.txt
}

main "$@"
