#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Configures a preset of CMakePresets.json and builds targets of it, with CUDA as deploy/find_cuda.sh decides; what ./demo,
# ./check and the Dockerfile have in common. Quiet: one line a step, the compiler's words only when the build fails.
# Compiles through ccache where it is installed; $CCACHE_DIR says where its objects lie, build/ccache unless told. An object is
# found again by its content and the compiler's, wherever the tree lies, so that one build can serve another's.
set -euo pipefail

if [ $# -lt 1 ] || [ "$1" = --help ] || [ "$1" = -h ]; then
  cat <<'TEXT'
usage: deploy/build.sh PRESET [TARGET...]      builds into build/PRESET; without targets, everything
  JOBS=N                 compiles N files at a time; as many as there are cores unless told
  SWIGLU_COMMIT=COMMIT   what --version reports; asks git unless told
TEXT
  [ $# -ge 1 ] && exit 0 || exit 2
fi
preset=$1
shift
cd "$(dirname "$0")/.."
folder=build/$preset
mkdir -p "$folder"

# Whether the packages are there that the Python client is built with.
has_python() {
  [ -e /usr/include/pybind11/pybind11.h ] && command -v patchelf >/dev/null &&
    [ -e "$(python3 -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" ]
}

# Configured afresh only when the choice of CUDA or of the Python client differs from last time's; ninja sees to everything else.
case "$preset" in
  asan | tsan | tidy | cpu-only) arguments="--preset $preset" ;;
  *)
    nvcc=$(deploy/find_cuda.sh)
    if [ -n "$nvcc" ]; then
      arguments="--preset $preset -DSWIGLU_ENABLE_CUDA=ON -DCMAKE_CUDA_COMPILER=$nvcc"
    else
      arguments="--preset $preset -DSWIGLU_ENABLE_CUDA=OFF"
    fi
    # What it needs may have been installed since the last time.
    arguments+=" -DSWIGLU_ENABLE_PYTHON=$(has_python && echo ON || echo OFF)"
    ;;
esac
if [ -n "${SWIGLU_COMMIT:-}" ]; then arguments+=" -DSWIGLU_COMMIT=$SWIGLU_COMMIT"; fi
if command -v ccache >/dev/null; then
  arguments+=" -DCMAKE_CXX_COMPILER_LAUNCHER=ccache -DCMAKE_CUDA_COMPILER_LAUNCHER=ccache"
  # Headers that the build itself writes are new, and the language of the machine changes only messages.
  export CCACHE_DIR=${CCACHE_DIR:-$PWD/build/ccache} CCACHE_BASEDIR=$PWD CCACHE_NOHASHDIR=1 CCACHE_COMPILERCHECK=content \
    CCACHE_SLOPPINESS=include_file_mtime,include_file_ctime,locale
fi
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
jobs=(${JOBS:+--parallel "$JOBS"})
show=(awk '/^\[[0-9]+\/[0-9]+\]/ { split(substr($1, 2), at, "/"); if (at[1] % 25 == 0) { print; fflush() } }')
if [ -t 1 ]; then
  status() { cmake --build "$folder" "${jobs[@]}" --target "${@:-all}"; }
else
  status() { cmake --build "$folder" "${jobs[@]}" --target "${@:-all}" 2>&1 | tee "$log" | "${show[@]}"; }
fi
if ! status "$@"; then
  if [ ! -t 1 ]; then
    sed -n '/^FAILED:/,$p' "$log" | head -n 200 >&2
  fi
  echo "build: failed" >&2
  exit 1
fi
echo "build: done in $((SECONDS - started)) s"
