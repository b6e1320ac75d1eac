#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Prints the path of the docker command: the one in PATH, else the one of the distribution's package docker.io, unpacked into
# CACHE_FOLDER and not installed, because installing it starts a service: docker_command.sh CACHE_FOLDER. Exit code 77, and
# why, where there is none.
set -euo pipefail
cache=$1

skip() {
  echo "skipped: no docker command: $1" >&2
  exit 77
}

if docker=$(command -v docker) && "$docker" --version 2>/dev/null | grep -q '^Docker version'; then
  echo "$docker"
  exit 0
fi
if [ ! -x "$cache/docker" ]; then
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  chmod a+rx "$work"
  (cd "$work" && apt-get download docker.io >log 2>&1) || skip "apt-get download docker.io failed: $(tail -n 1 "$work/log")"
  dpkg-deb --fsys-tarfile "$work"/docker.io_*.deb | tar -C "$work" -x ./usr/bin/docker ||
    skip "the package docker.io has no docker"
  mkdir -p "$cache"
  mv "$work/usr/bin/docker" "$cache/docker"
fi
echo "$cache/docker"
