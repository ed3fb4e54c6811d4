# Puts an order into the queue by hand.
NAME=shopctl
. @common@/share/shop.sh

case ${1-} in
  order) get "${QUEUE_URL:-http://queue:7000}/put?${2:?which product}+${3:-1}" ;;
  *)
    echo "usage: shopctl order PRODUCT [COUNT]" >&2
    exit 2
    ;;
esac
