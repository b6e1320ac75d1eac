#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Makes a folder that holds the rival and can be moved: NVIDIA Triton Inference Server, out of the pinned Python package that
# ships its binary, and a backend of it that computes with this project's kernel. FOLDER/run serves it.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: tests/bench/rival/setup.sh [--pack=FILE.tar.xz] FOLDER
  FOLDER               must not be there yet; FOLDER/run serves on 127.0.0.1:$PORT, with PEER_IDENTITY=1 without a GPU,
                       answering but not computing
  --pack=FILE.tar.xz   also packs what is in FOLDER, for a machine that can fetch nothing (glibc 2.35 or newer)
Builds in build/ci, with the CUDA compiler that is there or a fetched one.
TEXT
}

pack=
case "${1:-}" in
  --pack=?*.tar.xz) pack=$(realpath -m "${1#--pack=}"); shift ;;
  -h | --help) usage; exit 0 ;;
esac
if [ $# -ne 1 ] || [[ $1 = -* ]]; then usage >&2; exit 2; fi
if [ -e "$1" ]; then echo "rival: $1 is already there" >&2; exit 1; fi
here=$(cd "$(dirname "$0")" && pwd)
root=$here/../../..
mkdir -p "$(dirname "$1")"
folder=$(realpath -m "$1")

"$root/deploy/setup.sh" build cuda
SWIGLU_ENABLE_CUDA=ON "$root/deploy/build.sh" ci rival_backend

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
echo "rival: fetching Triton"
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --retries 5 --require-hashes --no-deps --no-compile \
  --only-binary=:all: --target "$work/wheel" --requirement "$here/requirements.txt"

# Of the package, the server and those libraries that it loads; it looks for them in ../lib.
server=$work/wheel/pytriton/tritonserver/bin/tritonserver
chmod +x "$server"
new=$work/rival
mkdir -p "$new/bin" "$new/lib" "$new/backends/swiglu"
cp "$server" "$new/bin"
ldd "$server" | sed -n "s|^.* => \($work/wheel/[^ ]*\).*|\1|p" | xargs cp -t "$new/lib"
cp -r "$work"/wheel/nvidia_pytriton-*.dist-info/licenses "$new"

strip -o "$new/backends/swiglu/libtriton_swiglu.so" "$root/build/ci/bin/libtriton_swiglu.so"
make_model() {
  mkdir -p "$new/$1/swiglu_forward_fp16/1"
  sed "s/@instances@/$2/" "$here/config.pbtxt" >"$new/$1/swiglu_forward_fp16/config.pbtxt"
}
make_model cuda "kind: KIND_GPU gpus: [ 0 ]"
make_model identity "kind: KIND_CPU"
cp "$here/run" "$new"
mv "$new" "$folder"
echo "rival: $(du -sh "$folder" | cut -f 1) in $folder"

if [ -n "$pack" ]; then
  tar --sort=name --owner=0 --group=0 -C "$folder" -cJf "$pack" .
  echo "rival: $(du -h "$pack" | cut -f 1) in $pack"
fi
