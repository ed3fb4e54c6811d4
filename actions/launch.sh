#!/bin/sh
# launch.sh <tool> [argument...]: run the flakeship binary that belongs to this checkout.
# A release tag carries prebuilt static binaries in dist/<os>-<arch>/; any other ref builds with Go when Go is there.
set -eu
tool=$1
shift
case $0 in
*/*) root=${0%/*}/.. ;;
*) root=.. ;;
esac
# uname, not RUNNER_OS and RUNNER_ARCH: runners do not agree on their values. It is the one process that is started before the binary.
kernel=$(uname -sm)
case ${kernel% *} in
Linux) os=linux ;;
Darwin) os=darwin ;;
*) os=${kernel% *} ;;
esac
case ${kernel##* } in
x86_64 | amd64) arch=amd64 ;;
aarch64 | arm64) arch=arm64 ;;
*) arch=${kernel##* } ;;
esac
binary=$root/dist/$os-$arch/$tool
if [ -x "$binary" ]; then
	exec "$binary" "$@"
fi
if command -v go >/dev/null 2>&1; then
	# Built anew each time, which Go's build cache makes short: a binary kept from an older commit of this ref would be wrong.
	unset GOOS GOARCH GOFLAGS # the job may have set them for its own build
	root=$(CDPATH='' cd -- "$root" && pwd)
	mkdir -p "$root/.cache"
	echo "$tool: this ref has no prebuilt binary for $os-$arch; building it with Go"
	built=$root/.cache/$tool.$$
	trap 'rm -f "$built"' EXIT
	(cd "$root" && CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '-s -w' -o "$built" "./cmd/$tool")
	mv -f "$built" "$root/.cache/$tool"
	exec "$root/.cache/$tool" "$@"
fi
echo "$tool: error: this ref of flakeship has no prebuilt binary for $os-$arch, and no Go to build it"
echo "$tool: hint: name a release tag in uses:, such as @v1.0.0, or install Go on the runner"
exit 1
