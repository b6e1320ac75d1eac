#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Builds and runs programs by what pkg-config says of an installed folder, as a user without CMake would:
#
#   check_pkg_config.sh INSTALLED FOLDER CXX [PKG_CONFIG_ARGUMENT...]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
folder=$2 cxx=$3
export PKG_CONFIG_PATH=$1/lib/pkgconfig
shift 3
mkdir -p "$folder"

# build SOURCE PACKAGE: a program of consumer/.
build() {
  local flags version
  version=$(pkg-config --modversion "$2")
  read -ra flags <<<"$(pkg-config "${@:3}" --cflags --libs "$2")"
  "$cxx" -std=c++20 -DPACKAGE_VERSION="\"$version\"" "$here/consumer/$1.cc" -o "$folder/$1" "${flags[@]}"
  "$folder/$1"
}

build client_consumer swiglu-client
build kernels_consumer swiglu-kernels "$@"
if pkg-config --exists swiglu-client-cuda; then
  build cuda_consumer swiglu-kernels "$@"
  build cuda_client_consumer swiglu-client-cuda "$@"
fi
