#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Makes the stubs for Go and builds the example with the packages of Debian 12 that `deploy/setup.sh long` installs:
# `build.sh FOLDER` writes FOLDER/forward.
set -euo pipefail
out=$(realpath -m "$1")
cd "$(dirname "$0")/../../.."

mkdir -p "$out/src"
protoc --proto_path=proto --go_out="$out/src" --go-grpc_out="$out/src" inference.proto
GO111MODULE=off GOPATH=$out:/usr/share/gocode GOCACHE=${GOCACHE:-$out/cache} \
  go build -o "$out/forward" client/examples/go/forward.go
