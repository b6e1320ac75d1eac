#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Compiles each header of an installed folder by itself, with nothing but what pkg-config says of the folder, and with warnings
# as errors:
#
#   check_headers.sh INSTALLED CXX [PKG_CONFIG_ARGUMENT...]
set -euo pipefail
installed=$1
export CXX=$2 PKG_CONFIG_PATH=$1/lib/pkgconfig
shift 2
FLAGS=$(pkg-config "$@" --cflags swiglu-client swiglu-kernels)
export FLAGS

mapfile -t headers < <(cd "$installed/include" && find . -name '*.h' -printf '%P\n' | sort)
[ ${#headers[@]} -gt 10 ] || { echo "FAILED: only ${#headers[@]} headers in $installed/include"; exit 1; }
# shellcheck disable=SC2016  # the words are for the shell that xargs starts
printf '%s\n' "${headers[@]}" | xargs -P "$(nproc)" -I HEADER bash -c '
  echo "#include \"$1\"" |
    "$CXX" -std=c++20 -fsyntax-only -Wall -Wextra -Wpedantic -Werror $FLAGS -x c++ - || { echo "FAILED: $1"; exit 1; }
' bash HEADER
echo "${#headers[@]} headers compile alone"
