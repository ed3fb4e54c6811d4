# Brings the data to the shape this release needs: each file of migrations/ once, in order.
NAME=migrate
. @common@/share/shop.sh

# pending lists the steps that are not among those on standard input.
pending() {
  done=$(cat)
  for file in @share@/migrations/*.sql; do
    step=$(basename "$file" .sql)
    echo "$done" | grep -qx "$step" || echo "$step"
  done
}

serve() {
  applied=${DATA_DIR:-/tmp}/applied
  touch "$applied"
  for step in $(pending < "$applied"); do
    log "$step: $(wc -l < "@share@/migrations/$step.sql") lines"
    echo "$step" >> "$applied"
  done
}

check() {
  test "$(printf "" | pending)" = "$(printf '0001-products\n0002-orders')"
  test "$(echo 0001-products | pending)" = 0002-orders
}

main "$@"
