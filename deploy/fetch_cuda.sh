#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Fetches the pinned CUDA 13.0 compiler (about 100 MB, no root, no driver) into a folder laid out as a toolkit, and prints
# the path of its nvcc. A folder that already holds the pinned set is left as it is.
set -euo pipefail

if [ $# -ne 1 ] || [ "$1" = --help ] || [ "$1" = -h ]; then
  echo "usage: deploy/fetch_cuda.sh FOLDER      fetches the CUDA compiler into FOLDER and prints the path of nvcc"
  [ $# -eq 1 ] && exit 0 || exit 2
fi

here=$(cd "$(dirname "$0")" && pwd)
requirements=$here/cuda-requirements.txt
mkdir -p "$(dirname "$1")"
target=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")

if cmp -s "$requirements" "$target/requirements.txt"; then
  echo "$target/bin/nvcc"
  exit 0
fi
if [ "$(uname -sm)" != "Linux x86_64" ]; then
  echo "fetch_cuda: the pinned compiler is for x86-64 Linux; this is $(uname -sm)" >&2
  exit 1
fi
"$here/setup.sh" cuda >&2

work=$(mktemp -d "$target.XXXXXX")
trap 'rm -rf "$work"' EXIT
echo "fetch_cuda: fetching the CUDA 13.0 compiler into $target" >&2
started=$SECONDS
python3 -m venv "$work/venv"
for attempt in 1 2 3; do
  if "$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --require-hashes --no-compile \
    --only-binary=:all: --platform manylinux2014_x86_64 --platform manylinux2010_x86_64 \
    --target "$work/wheels" --requirement "$requirements" >&2; then
    break
  fi
  if [ "$attempt" -eq 3 ]; then
    echo "fetch_cuda: the download failed three times" >&2
    exit 1
  fi
  sleep $((attempt * 5))
done

# The wheels carry neither executable bits, nor the names lib64 and libcudart.so that CMake looks for.
toolkit=$work/wheels/nvidia/cu13
find "$toolkit/bin" "$toolkit/nvvm/bin" -maxdepth 1 -type f ! -name '*.profile' -exec chmod +x {} +
ln -s lib "$toolkit/lib64"
ln -s libcudart.so.13 "$toolkit/lib/libcudart.so"
cp "$requirements" "$toolkit/requirements.txt"
rm -rf "$target"
mv "$toolkit" "$target"
echo "fetch_cuda: $("$target/bin/nvcc" --version | sed -n 's/^Cuda compilation tools, //p') in $((SECONDS - started)) s" >&2
echo "$target/bin/nvcc"
