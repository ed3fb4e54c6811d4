#!/bin/sh
# vendor-hash.sh: writes nix/vendor-hash, the NAR hash of the modules that nix/package.nix builds with.
# vendor-hash.sh --check: says whether it is up to date, and changes nothing.
#
# buildGoModule takes the hash of `go mod vendor` over its source, so this needs no nixpkgs: the same files, the same command.
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

cd "$root"
cp -R go.mod go.sum cmd internal "$tmp"
(cd "$tmp" && GOFLAGS='' GOWORK=off go mod vendor)
hash=$(NIX_REMOTE=dummy:// nix --extra-experimental-features nix-command hash path "$tmp/vendor")

if [ "${1-}" = --check ]; then
	[ "$(cat nix/vendor-hash)" = "$hash" ] && exit
	echo "error: nix/vendor-hash is $(cat nix/vendor-hash), the modules have $hash" >&2
	echo "hint: run nix/vendor-hash.sh and commit the file" >&2
	exit 1
fi
printf '%s\n' "$hash" >nix/vendor-hash
echo "nix/vendor-hash: $hash"
