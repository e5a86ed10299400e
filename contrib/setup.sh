#!/bin/bash
# Installs the Debian packages that building, testing and measuring Berth need,
# and names each before it does. With nothing missing it only looks, in
# milliseconds. Where it may not install it says what to install and lets the
# caller go on: not all is needed for everything.
#
#   contrib/setup.sh build  what `make build` and `make check` need
#   contrib/setup.sh        also what demo, the other tests and benchmarks need
#   contrib/setup.sh gen    what `make gen` needs
#   contrib/setup.sh vm     what `make vm` needs
set -euo pipefail

missing=()

# need PACKAGE TEST...: PACKAGE is missing where the TEST fails.
need() {
	local package=$1
	shift
	"$@" >/dev/null 2>&1 || missing+=("$package")
}

header() { echo "#include <$1>" | "${CC:-gcc}" -E -x c -; }
# Debian's busybox is dynamic, and would not run in an image of its own.
static() { test -x "$1" && segments=$(readelf -lW "$1") && [[ $segments != *INTERP* ]]; }
trusted() { test -s /etc/ssl/certs/ca-certificates.crt; }

# sbin is not in everybody's PATH.
PATH=$PATH:/usr/sbin:/sbin

need gcc command -v "${CC:-gcc}"
need libc6-dev header stdlib.h
need libseccomp-dev header seccomp.h
need pkg-config command -v pkg-config
need git command -v git
need ca-certificates trusted
case "${1-}" in
build) ;;
gen)
	need protobuf-compiler command -v protoc
	;;
vm)
	need qemu-system-x86 command -v qemu-system-x86_64
	need mmdebstrap command -v mmdebstrap
	need e2fsprogs command -v mkfs.ext4
	need busybox-static static /bin/busybox
	;;
*)
	need iptables command -v iptables
	need nftables command -v nft
	need iproute2 command -v ip
	need busybox-static static /bin/busybox
	need curl command -v curl
	need mmdebstrap command -v mmdebstrap
	need crun command -v crun
	need runc command -v runc
	;;
esac

if [ ${#missing[@]} -eq 0 ]; then
	exit 0
fi
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
	echo "setup: missing, and not to be installed from here (Debian's names): ${missing[*]}" >&2
	exit 0
fi
echo "setup: installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends "${missing[@]}"
