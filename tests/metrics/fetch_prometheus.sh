#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Puts the programs prometheus and promtool into a folder, out of the distribution's prometheus package, which is unpacked and
# not installed, because installing it starts a service.
#
#   fetch_prometheus.sh FOLDER
#
# Tests share the folder, so only one of them fills it. Exit code 77: they could not be had, and why.
set -eu
folder=$1

skip() {
  echo "skipped: no Prometheus: $1"
  exit 77
}

mkdir -p "$folder"
exec 9>"$folder/lock"
flock 9
if [ -x "$folder/promtool" ] && [ -x "$folder/prometheus" ]; then exit 0; fi

for tool in apt-get dpkg; do
  command -v "$tool" >/dev/null || skip "there is no $tool to fetch it with"
done
download=$folder/download
rm -rf "$download"
mkdir -p "$download"
(
  cd "$download"
  timeout 120 apt-get download prometheus >log 2>&1 && exit 0
  # The package lists may be missing or old.
  [ "$(id -u)" = 0 ] && timeout 120 apt-get update >>log 2>&1 &&
    timeout 120 apt-get download prometheus >>log 2>&1
) || skip "apt-get download prometheus failed: $(tail -n 1 "$download/log")"
dpkg -x "$download"/prometheus_*.deb "$download/unpacked" || skip "the package does not unpack"
for program in prometheus promtool; do
  [ -x "$download/unpacked/usr/bin/$program" ] || skip "the package has no $program"
  mv "$download/unpacked/usr/bin/$program" "$folder/$program"
done
rm -rf "$download"
