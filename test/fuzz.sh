#!/bin/bash
# Runs each fuzz target of the tree for a while, one after the other: go test
# takes one target of one package at a time.
#
#   test/fuzz.sh 30s
set -euo pipefail
cd "$(dirname "$0")/.."
for_each=${1:-30s}

found=0
while IFS=: read -r file line; do
	target=$(sed -E 's/^func (Fuzz[A-Za-z0-9_]*).*/\1/' <<<"$line")
	package=./$(dirname "$file")
	found=$((found + 1))
	echo "== $package $target"
	BERTH_TEST_UNPRIVILEGED=1 go test -tags seccomp -run '^$' -fuzz "^$target\$" -fuzztime "$for_each" "$package"
done < <(grep -rE --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*\(' pkg cmd | sort)

echo "$found fuzz targets, $for_each each"
[ "$found" -gt 0 ]
