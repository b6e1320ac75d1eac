#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Writes the reference of the public headers to BUILD/reference/html, as the target `docs` and the test style_reference do:
# run.sh BUILD VERSION. Fails on any warning, such as one of a public member without a comment. Exit code 77 without Doxygen.
set -euo pipefail
cd "$(dirname "$0")/../.."
if ! command -v doxygen >/dev/null; then
  echo "skipped: no doxygen; deploy/setup.sh tests installs it"
  exit 77
fi
export SWIGLU_REFERENCE=$1/reference SWIGLU_GENERATED_HEADERS=$1/kernels/include SWIGLU_VERSION=$2
mkdir -p "$SWIGLU_REFERENCE"
doxygen docs/doxygen/Doxyfile
echo "$SWIGLU_REFERENCE/html/index.html"
