#!/usr/bin/env bash
# Runs a command with at least N free 2 MiB hugepages, and puts the number of hugepages back afterwards, however the
# command ends. Where the kernel gives fewer, it says so and runs the command all the same.
# Usage: hugepages.sh N COMMAND [ARGUMENT...]
set -euo pipefail

want=$1
shift
file=/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages
[ -w "$file" ] || exec "$@"
before=$(cat "$file")
trap 'echo "$before" >"$file"' EXIT
trap : INT TERM # the command gets them too, and ends first
echo $((before + want)) >"$file"
if [ "$(cat "$file")" -lt $((before + want)) ]; then
	echo "hugepages.sh: only $(cat "$file") of $((before + want)) hugepages are to be had" >&2
fi
"$@"
