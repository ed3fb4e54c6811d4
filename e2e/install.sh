#!/bin/sh
# install.sh demo|test: installs what the demo or the tests run and cannot
# build themselves. Says what it installs and how; says nothing when all is there.
set -eu

usage() {
	echo "usage: $0 demo|test" >&2
	exit 2
}
[ $# -eq 1 ] || usage
mode=$1

# Each line: a check, the Debian package, the attribute in nixpkgs.
demo='nix nix-bin nix
busybox busybox-static pkgsStatic.busybox
git git git
bash bash bash'
test='skopeo skopeo skopeo
umoci umoci umoci
registry docker-registry docker-distribution
sshd openssh-server openssh
ssh openssh-client openssh
chromium chromium chromium'
case $mode in
demo) wanted=$demo ;;
test)
	wanted="$demo
$test"
	;;
*) usage ;;
esac

# there NAME: is the tool installed, in a form that is of use?
there() {
	case $1 in
	nix) nix_is_new_enough ;;
	busybox) static_busybox ;;
	sshd) command -v sshd >/dev/null 2>&1 || [ -x /usr/sbin/sshd ] ;;
	registry) command -v docker-registry >/dev/null 2>&1 || command -v registry >/dev/null 2>&1 ;;
	*) command -v "$1" >/dev/null 2>&1 ;;
	esac
}

nix_is_new_enough() {
	version=$(nix --version 2>/dev/null | sed -n 's/.* \([0-9][0-9]*\)\.\([0-9][0-9]*\).*/\1 \2/p')
	[ -n "$version" ] || return 1
	# shellcheck disable=SC2086 # two numbers
	set -- $version
	[ "$1" -gt 2 ] || { [ "$1" -eq 2 ] && [ "$2" -ge 8 ]; }
}

# Builders run busybox in a sandbox without libraries, so it has to be static.
# Off Debian, the demo asks the installed Nix for one; the tests take the one on PATH.
static_busybox() {
	if [ ! -e /etc/debian_version ]; then
		[ "$mode" = demo ] || command -v busybox >/dev/null 2>&1
		return
	fi
	for file in /bin/busybox /usr/bin/busybox; do
		# A dynamic program names its loader near its beginning.
		if [ -x "$file" ] && ! head -c 4096 "$file" | grep -q 'ld-linux\|ld-musl'; then
			return 0
		fi
	done
	return 1
}

packages=
attributes=
names=
while read -r name package attribute; do
	there "$name" && continue
	names="$names $name"
	packages="$packages $package"
	attributes="$attributes nixpkgs#$attribute"
done <<EOF
$wanted
EOF
[ -n "$names" ] || exit 0

if command -v apt-get >/dev/null 2>&1; then
	sudo=
	if [ "$(id -u)" -ne 0 ]; then
		command -v sudo >/dev/null 2>&1 || {
			echo "error: missing:$names" >&2
			echo "hint: run as root: apt-get install --no-install-recommends$packages" >&2
			exit 1
		}
		sudo=sudo
	fi
	echo "installing$packages with apt-get, for the $mode" >&2
	log=$(mktemp)
	trap 'rm -f "$log"' EXIT
	# shellcheck disable=SC2086 # lists of words
	apt_install() {
		$sudo env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends $packages >"$log" 2>&1
	}
	# The package lists may be old or absent: refresh them only when they fail us.
	if ! apt_install && ! { $sudo apt-get update >"$log" 2>&1 && apt_install; }; then
		sed 's/^/    /' "$log" >&2
		echo "error: apt-get could not install$packages" >&2
		echo "hint: install them by hand; nix may also come from its own installer (2.8 or newer)" >&2
		exit 1
	fi
	# These packages start a service at every boot; the tests only want the program.
	for service in docker-registry:docker-registry openssh-server:ssh; do
		case $packages in
		*${service%:*}*)
			if command -v systemctl >/dev/null 2>&1; then
				$sudo systemctl disable --now "${service#*:}" >"$log" 2>&1 || true # no systemd runs in a container
			fi
			;;
		esac
	done
	if ! nix_is_new_enough; then
		echo "error: $(nix --version) is too old" >&2
		echo "hint: install Nix 2.8 or newer and put it on PATH" >&2
		exit 1
	fi
	exit 0
fi

echo "error: missing:$names" >&2
case $names in
*" nix"*) echo "hint: install Nix 2.8 or newer and put it on PATH, then run this again" >&2 ;;
*) echo "hint: run inside: nix --extra-experimental-features 'nix-command flakes' shell$attributes" >&2 ;;
esac
exit 1
