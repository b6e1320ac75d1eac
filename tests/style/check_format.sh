#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Fails on a C++ or CUDA source that clang-format 14 would write otherwise. Other versions differ in details, so without
# that one the test is skipped.
set -euo pipefail
cd "$1"
if ! command -v clang-format-14 >/dev/null; then
  echo "skipped: no clang-format-14"
  exit 77
fi
PYTHONPATH=tests/style python3 -B -c 'import source_tree; print(*source_tree.cpp_files("."), sep="\n")' |
  xargs clang-format-14 --dry-run --Werror
