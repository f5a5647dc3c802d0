#!/usr/bin/env bash
# Installs the Debian packages that are missing, and does nothing when none is. Needs root only to install.
# Usage: deps.sh [build|test|all]    build: to build the programs. test: what tests and the demo need besides. all: both.
set -euo pipefail

build=(ca-certificates clang gcc git libbpf-dev libc6-dev libdpdk-dev llvm make pkg-config protobuf-compiler)
test=(
	clang-format
	curl
	dovecot-imapd
	dovecot-pop3d
	dpdk-dev
	ethtool
	haproxy
	iproute2
	iputils-ping
	libclang-rt-14-dev
	libjson-c-dev
	nftables
	nginx-light
	openssl
	pciutils
	postfix
	postgresql
	procps
	python3
	redis-server
	redis-tools
	strace
	tshark
)

case "${1:-all}" in
build) want=("${build[@]}") ;;
test) want=("${test[@]}") ;;
all) want=("${build[@]}" "${test[@]}") ;;
*)
	echo "deps.sh: no group '$1': build, test or all" >&2
	exit 2
	;;
esac

missing=()
for package in "${want[@]}"; do
	if ! dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed; then
		missing+=("$package")
	fi
done
[ ${#missing[@]} -eq 0 ] && exit 0

if [ "$(id -u)" -ne 0 ]; then
	echo "deps.sh: as root, run: apt-get install ${missing[*]}" >&2
	exit 1
fi
echo "installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
# Services that packages bring are not wanted: tests start their own. policy-rc.d keeps them from starting.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod +x "$policy"
	trap 'rm -f "$policy"' EXIT
fi
# Postfix asks what kind of mail host this is to be: none.
if command -v debconf-set-selections >/dev/null; then
	debconf-set-selections <<<'postfix postfix/main_mailer_type select No configuration'
fi
apt-get update -q >/dev/null
apt-get install -y -q --no-install-recommends "${missing[@]}" >/dev/null
