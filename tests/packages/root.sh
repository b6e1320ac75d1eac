#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Makes the image swiglu-systemd, Debian 12 with systemd, in the store of tests/image/engine.sh, for packages to be installed
# into: root.sh ENGINE_FOLDER. Exit code 77, with the reason, where no engine runs or no mirror of Debian can be reached.
set -euo pipefail
folder=$1
image_tests=$(cd "$(dirname "$0")/../image" && pwd)
engine() { "$image_tests/engine.sh" build "$folder" "$@"; }

"$image_tests/engine.sh" prepare "$folder"
if engine podman image exists localhost/swiglu-systemd; then exit 0; fi
container=$(engine buildah from --pull-never docker.io/library/debian:bookworm-slim)
if ! engine buildah run "$container" -- \
  sh -c 'apt-get -qq update && apt-get -qq -y install --no-install-recommends systemd' >"$folder/systemd.log" 2>&1; then
  cat "$folder/systemd.log"
  engine buildah rm "$container" >/dev/null
  "$image_tests/fetch_failure.sh" "$folder/systemd.log" && exit 77
  exit 1
fi
engine buildah commit --quiet --rm "$container" swiglu-systemd
