#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Whether a build of the image failed because this machine reaches no mirror of packages or no Python registry, by what
# apt-get or pip say of it: fetch_failure.sh LOG. Prints the reason for a skip and exits with 0, or with 1 where it is another
# failure: a package with another hash, say, or one that a mirror which answers does not have.
set -euo pipefail
if grep -qE 'DO NOT MATCH THE HASHES|from versions: [0-9]|Hash Sum mismatch' "$1"; then exit 1; fi
unreachable='Temporary failure resolving|Could not resolve|Could not connect to|Failed to establish a new connection'
line=$(grep -m 1 -oE "($unreachable).*" "$1") || exit 1
echo "skipped: packages cannot be fetched: $line"
