#!/bin/sh
# Installs the Debian packages that are missing. Usage: scripts/deps.sh [build|test|demo ...]; without a group, all.
# It does nothing, and needs no root, when everything is there.
set -eu

build="gcc libc6-dev pkg-config make libdpdk-dev"
generate="clang-14 llvm-14 libbpf-dev bpftool protobuf-compiler clang-format"
test="iproute2 ethtool procps curl nginx-light haproxy python3-minimal dpdk-dev tshark nftables libclang-rt-14-dev"
demo="iproute2 ethtool procps curl nginx-light ca-certificates"

# present PACKAGE: is it, or something that stands for it, installed?
present() {
	case "$1" in
	nginx-light) [ -x /usr/sbin/nginx ] ;;
	*) [ "$(dpkg-query --show --showformat '${db:Status-Status}' "$1" 2>/dev/null)" = installed ] ;;
	esac
}

[ $# -gt 0 ] || set -- build generate test demo
missing=""
for group in "$@"; do
	case "$group" in
	build) packages=$build ;;
	generate) packages=$generate ;;
	test) packages=$test ;;
	demo) packages=$demo ;;
	*)
		echo "deps.sh: no group $group: build, generate, test or demo" >&2
		exit 2
		;;
	esac
	for package in $packages; do
		present "$package" || missing="$missing $package"
	done
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" -ne 0 ]; then
	echo "deps.sh: missing packages:$missing (install them, or run this as root)" >&2
	exit 1
fi
export DEBIAN_FRONTEND=noninteractive
# Package lists may be fresh enough: only fetch them when the installation does not work without. No service is started
# by an installation: policy-rc.d says no while it runs, unless the host has a policy of its own.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
	trap 'rm -f "$policy"' EXIT
	trap 'exit 130' INT TERM
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod +x "$policy"
fi
# shellcheck disable=SC2086 # a list of words
install() { apt-get install --quiet --yes --no-install-recommends $missing </dev/null; }
install >/dev/null 2>&1 || { apt-get update --quiet && install; }
