# The day's figures, once a night.
NAME=report
. @common@/share/shop.sh

summary() {
  awk -F '[:, }]+' '/"price"/ { n++; for (i = 1; i < NF; i++) if ($i == "\"price\"") sum += $(i + 1) }
    END { printf "%d products, %d in all\n", n, sum }'
}

serve() { get "${API_URL:-http://api}/products.json" | summary; }

check() { summary < @share@/example.json | grep -q '^2 products, 1410 in all$'; }

main "$@"
