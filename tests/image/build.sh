#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Builds the Dockerfile on a Debian base of its own, then compiles and gathers once more with one compiler at a time, and
# expects the same digest: build.sh ENGINE_FOLDER SOURCE [cold]. Takes compiled objects from where deploy/build.sh ci
# has put them; "cold" compiles everything the second time. Exit code 77, with the reason, where no engine runs or what the
# build fetches cannot be had.
set -euo pipefail
folder=$1 source=$2 second=${3:-}
objects=${CCACHE_DIR:-$source/build/ccache}
here=$(cd "$(dirname "$0")" && pwd)
started=$SECONDS
say() { echo "$1: $((SECONDS - started)) s"; started=$SECONDS; }

"$here/engine.sh" prepare "$folder"
say "base"

# A toolkit that is here already need not be fetched again.
mounts=()
nvcc=$("$source/deploy/find_cuda.sh" 2>/dev/null)
if [ -n "$nvcc" ]; then mounts+=(--volume "$(dirname "$(dirname "$(realpath "$nvcc")")"):/usr/local/cuda:ro"); fi
mkdir -p "$objects"

# A time of build that is not the clock's; see docs/operations/image.md.
build() {
  "$here/engine.sh" build "$folder" buildah bud --pull-never --layers --format docker --timestamp 1700000000 \
    "${mounts[@]}" "$@" "$source" >"$folder/build.log" 2>&1 && return
  tail -n 60 "$folder/build.log"
  "$here/fetch_failure.sh" "$folder/build.log" && exit 77
  exit 1
}
inspect() { "$here/engine.sh" build "$folder" podman image inspect --format "$2" "$1"; }

build --volume "$objects:/ccache" --tag swiglu
say "first build"
if [ "$second" = cold ]; then
  build --build-arg JOBS=3 --tag swiglu-again
else
  build --volume "$objects:/ccache" --build-arg JOBS=1 --tag swiglu-again
fi
say "second build"

digests=("$(inspect swiglu '{{.Digest}} {{.Id}}')" "$(inspect swiglu-again '{{.Digest}} {{.Id}}')")
printf '%s\n' "${digests[@]}"
if [ "${digests[0]}" != "${digests[1]}" ]; then
  echo "FAILED: two builds of the same sources differ"
  exit 1
fi
echo "size: $(inspect swiglu '{{.Size}}') bytes"
