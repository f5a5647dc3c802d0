#!/bin/sh
# Reserves hugepages of the default size and puts the former number back.
#   scripts/hugepages.sh reserve N    sees to it that N are free if it can; prints the number that there was
#   scripts/hugepages.sh restore N    sets the number back to N
# Reserving more than there is memory for is no error: Baton runs without hugepages, only slower. N=0 changes nothing.
set -eu

file=/proc/sys/vm/nr_hugepages

usage() {
	echo "usage: hugepages.sh reserve|restore N" >&2
	exit 2
}

[ $# -eq 2 ] || usage
case "$2" in '' | *[!0-9]*) usage ;; esac

case "$1" in
reserve)
	total=$(cat "$file")
	free=$(awk '/^HugePages_Free:/ { print $2 }' /proc/meminfo)
	echo "$total"
	if [ "$2" -gt "$free" ] && [ -w "$file" ]; then
		echo $((total + $2 - free)) >"$file" || true
		free=$(awk '/^HugePages_Free:/ { print $2 }' /proc/meminfo)
		[ "$free" -ge "$2" ] || echo "hugepages.sh: only $free of $2 could be reserved" >&2
	fi
	;;
restore)
	[ "$(cat "$file")" = "$2" ] || echo "$2" >"$file"
	;;
*) usage ;;
esac
