#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Gives the page to `promtool check metrics`, which must have nothing to say.
#
#   promtool_check.sh PAGE_PROGRAM CACHE_FOLDER
#
# promtool is taken from PATH, else out of the distribution's prometheus package, unpacked into
# CACHE_FOLDER and not installed, because installing it starts a service. Exit code 77: it could not
# be had, and why.
set -eu
page_program=$1
cache=$2

skip() {
  echo "skipped: no promtool: $1"
  exit 77
}

fetch() {
  for tool in apt-get dpkg; do
    command -v "$tool" >/dev/null || skip "there is no $tool to fetch it with"
  done
  mkdir -p "$cache/download"
  (
    cd "$cache/download"
    rm -f ./*.deb
    timeout 120 apt-get download prometheus >log 2>&1 && exit 0
    # The package lists may be missing or old.
    [ "$(id -u)" = 0 ] && timeout 120 apt-get update >>log 2>&1 &&
      timeout 120 apt-get download prometheus >>log 2>&1
  ) || skip "apt-get download prometheus failed: $(tail -n 1 "$cache/download/log")"
  rm -rf "$cache/unpacking"
  dpkg -x "$cache"/download/prometheus_*.deb "$cache/unpacking" ||
    skip "the package does not unpack"
  [ -x "$cache/unpacking/usr/bin/promtool" ] || skip "the prometheus package has no promtool"
  mv "$cache/unpacking/usr/bin/promtool" "$cache/promtool"
  rm -rf "$cache/unpacking" "$cache/download"
}

promtool=$(command -v promtool || true)
if [ -z "$promtool" ]; then
  promtool=$cache/promtool
  [ -x "$promtool" ] || fetch
fi

mkdir -p "$cache"
"$page_program" >"$cache/page.txt"
status=0
complaints=$("$promtool" check metrics <"$cache/page.txt" 2>&1) || status=$?
if [ "$status" != 0 ] || [ -n "$complaints" ]; then
  echo "promtool check metrics: exit $status"
  echo "$complaints"
  exit 1
fi
echo "promtool has nothing to say about $(grep -c -v '^#' "$cache/page.txt") lines"
