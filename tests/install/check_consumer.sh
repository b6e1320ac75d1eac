#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Builds and runs the project in consumer/, and that of client/examples, against an installed package, as a user of the libraries
# would.
#
#   check_consumer.sh INSTALLED FOLDER [CMAKE_ARGUMENT...]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
installed=$1 folder=$2
shift 2
rm -rf "$folder"
# Found by way of a link, as a package in /usr/lib is by /lib.
mkdir -p "$folder/linked"
ln -s "$(realpath "$installed")/lib" "$folder/linked/lib"
cmake -G Ninja -S "$here/consumer" -B "$folder" -DCMAKE_PREFIX_PATH="$folder/linked" "$@"
cmake --build "$folder"
"$folder/kernels_consumer"
"$folder/client_consumer"
if [ -x "$folder/cuda_consumer" ]; then
  "$folder/cuda_consumer"
  "$folder/cuda_client_consumer"
fi

# The examples, with the installed server.
cmake -G Ninja -S "$here/../../client/examples" -B "$folder/examples" -DCMAKE_PREFIX_PATH="$installed"
cmake --build "$folder/examples"
python3 -B "$here/../wire/examples_test.py" --server="$installed/bin/swiglu-server" --examples="$folder/examples"
