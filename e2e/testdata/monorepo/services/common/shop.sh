# What every service starts with. A service sets NAME, defines serve and check, reads this file and calls main.
PATH=@busybox@/bin
export PATH

log() { echo "$(date -u +%FT%TZ) $NAME: $*" >&2; }

# get URL prints what is there; an unreachable service is worth a line, not the end.
get() { wget -q -T 5 -O - "$1" || log "cannot reach $1"; }

# main --check shows that the service works, without network or state, and ends.
main() {
  case ${1-} in
    --check)
      check
      echo "$NAME: ok"
      ;;
    '') serve ;;
    *)
      echo "usage: $NAME [--check]" >&2
      exit 2
      ;;
  esac
}
