#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Makes the stubs for Java and builds the example with the packages of Debian 12 that `deploy/setup.sh long` installs:
# `build.sh FOLDER` writes FOLDER/classes and FOLDER/forward, which runs them.
set -euo pipefail
out=$(realpath -m "$1")
cd "$(dirname "$0")/../../.."

mkdir -p "$out/sources" "$out/classes"
protoc --proto_path=proto --java_out="$out/sources" --grpc-java_out="$out/sources" \
  --plugin=protoc-gen-grpc-java=/usr/bin/grpc_java_plugin inference.proto
classpath=$(printf ':/usr/share/java/%s.jar' grpc-{api,context,core,netty,protobuf,protobuf-lite,stub} \
  netty-{buffer,codec,codec-http,codec-http2,common,handler,handler-proxy,resolver,transport} \
  geronimo-annotation-1.3-spec gson guava perfmark-api protobuf)
find "$out/sources" client/examples/java -name '*.java' >"$out/files"
javac -nowarn -cp "$classpath" -d "$out/classes" "@$out/files"

printf '#!/bin/sh\nexec java -cp "%s" Forward "$@"\n' "$out/classes$classpath" >"$out/forward"
chmod +x "$out/forward"
