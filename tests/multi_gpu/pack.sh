#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Puts what run.sh needs into a folder, for a machine that has a driver and python3 and nothing else.
set -euo pipefail
cd "$(dirname "$0")/../.."

if [ $# -ne 2 ]; then
  echo "usage: tests/multi_gpu/pack.sh BUILD_FOLDER NEW_FOLDER" >&2
  exit 2
fi
build=$1 out=$2
if [ -e "$out" ]; then
  echo "$out is there already" >&2
  exit 2
fi
trap '[ $? -eq 0 ] || rm -rf "$out"' EXIT

for component in service tools; do cmake --install "$build" --component "$component" --prefix "$out" --strip >/dev/null; done
for program in cuda_fault_server kernels_cuda_test; do strip -o "$out/bin/$program" "$build/bin/$program"; done
files=(tests/multi_gpu tests/golden tests/bench/wire/{contestants,machine,summary}.py
  tests/wire/{contract,cuda_fault_test,device_fault_test,plain_grpc,server_process,tensor_files}.py)
cp --parents -r "${files[@]}" "$out"
python3 -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --target "$out/tests/wire" \
  --requirement <(grep --after-context=1 --extended-regexp '^(hpack|hyperframe)==' tests/wire/requirements.txt)
find "$out" -name __pycache__ -prune -exec rm -r {} +
echo "run: $out/tests/multi_gpu/run.sh"
