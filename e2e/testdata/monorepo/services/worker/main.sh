# Takes orders from the queue and adds up what they cost.
NAME=worker
. @common@/share/shop.sh

# total reads orders, one "PRODUCT COUNT" on a line, and the products in $1.
total() {
  awk -v products="$1" '
    BEGIN { while ((getline line < products) > 0) if (match(line, /"name": "[a-z]+"/)) {
      name = substr(line, RSTART + 9, RLENGTH - 10); match(line, /"price": [0-9]+/); price[name] = substr(line, RSTART + 9, RLENGTH - 9) } }
    { sum += price[$1] * $2 } END { print sum + 0 }'
}

serve() {
  products=$(mktemp)
  while :; do
    get "${API_URL:-http://api}/products.json" > "$products"
    get "${QUEUE_URL:-http://queue:7000}/take" | total "$products" | while read -r sum; do log "orders for $sum"; done
    sleep "${INTERVAL:-10}"
  done
}

check() {
  test "$(printf 'tea 2\ncup 1\n' | total @share@/example.json)" = 1830
}

main "$@"
