#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Configures a preset of CMakePresets.json and builds targets of it, with CUDA as deploy/find_cuda.sh decides; what ./demo,
# ./check and the Dockerfile have in common. Quiet: one line a step, the compiler's words only when the build fails.
set -euo pipefail

if [ $# -lt 1 ] || [ "$1" = --help ] || [ "$1" = -h ]; then
  echo "usage: deploy/build.sh PRESET [TARGET...]      builds into build/PRESET; without targets, everything"
  [ $# -ge 1 ] && exit 0 || exit 2
fi
preset=$1
shift
cd "$(dirname "$0")/.."
folder=build/$preset
mkdir -p "$folder"

# Configured afresh only when the choice of CUDA differs from last time's; ninja sees to everything else.
case "$preset" in
  asan | tsan | fuzz | cpu-only) arguments="--preset $preset" ;;
  *)
    nvcc=$(deploy/find_cuda.sh)
    if [ -n "$nvcc" ]; then
      arguments="--preset $preset -DSWIGLU_ENABLE_CUDA=ON -DCMAKE_CUDA_COMPILER=$nvcc"
    else
      arguments="--preset $preset -DSWIGLU_ENABLE_CUDA=OFF"
    fi
    ;;
esac
if [ ! -f "$folder/build.ninja" ] || [ "$arguments" != "$(cat "$folder/configured_with" 2>/dev/null)" ]; then
  echo "configure: $folder"
  # shellcheck disable=SC2086  # the arguments are words
  if ! cmake --fresh $arguments >"$folder/configure.log" 2>&1; then
    cat "$folder/configure.log" >&2
    exit 1
  fi
  echo "$arguments" >"$folder/configured_with"
fi

# A terminal sees ninja's own single line; a log gets every 25th step.
started=$SECONDS
log=$folder/build.log
echo "build: $folder ${*:-everything}"
show=(awk '/^\[[0-9]+\/[0-9]+\]/ { split(substr($1, 2), at, "/"); if (at[1] % 25 == 0) { print; fflush() } }')
if [ -t 1 ]; then
  status() { cmake --build "$folder" --target "${@:-all}"; }
else
  status() { cmake --build "$folder" --target "${@:-all}" 2>&1 | tee "$log" | "${show[@]}"; }
fi
if ! status "$@"; then
  if [ ! -t 1 ]; then
    sed -n '/^FAILED:/,$p' "$log" | head -n 200 >&2
  fi
  echo "build: failed" >&2
  exit 1
fi
echo "build: done in $((SECONDS - started)) s"
