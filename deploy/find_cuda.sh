#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Decides whether this machine builds with CUDA: prints the path of the nvcc to use, or nothing for a CPU-only build, and
# says why in one line on standard error.
set -euo pipefail

if [ "${1:-}" = --help ] || [ "${1:-}" = -h ]; then
  cat <<'TEXT'
usage: deploy/find_cuda.sh      prints the nvcc to build with, or nothing
  SWIGLU_ENABLE_CUDA=AUTO (the default): the toolkit that is there ($CUDACXX, PATH, $CUDA_HOME, /usr/local/cuda; 12.8 or
    newer); on a machine with an NVIDIA GPU and no toolkit, the pinned compiler, fetched into build/; else none
  SWIGLU_ENABLE_CUDA=ON: as AUTO, but fetches the compiler also where no GPU is
  SWIGLU_ENABLE_CUDA=OFF: none
TEXT
  exit 0
fi

here=$(cd "$(dirname "$0")" && pwd)
fetched=$here/../build/cuda-13.0
wish=${SWIGLU_ENABLE_CUDA:-AUTO}
case "$wish" in AUTO | ON | OFF) ;; *) echo "cuda: SWIGLU_ENABLE_CUDA is AUTO, ON or OFF, not '$wish'" >&2; exit 2 ;; esac

say() { echo "cuda: $*" >&2; }

# Prints the release of a compiler that knows every architecture we build for; fails for an older one.
release_of() {
  local release
  release=$("$1" --version 2>/dev/null | sed -n 's/.*release \([0-9.]*\),.*/\1/p')
  [ -n "$release" ] && printf '12.8\n%s\n' "$release" | sort -V -C && echo "$release"
}

if [ "$wish" = OFF ]; then
  say "off, as asked: a CPU-only build"
  exit 0
fi
for nvcc in "${CUDACXX:-}" "$(command -v nvcc || true)" "${CUDA_HOME:+$CUDA_HOME/bin/nvcc}" /usr/local/cuda/bin/nvcc; do
  if [ -x "$nvcc" ] && release=$(release_of "$nvcc"); then
    say "toolkit $release, $nvcc"
    echo "$nvcc"
    exit 0
  fi
done
if [ "$wish" = AUTO ] && [ ! -e /dev/nvidiactl ] && ! command -v nvidia-smi >/dev/null; then
  say "neither a toolkit of 12.8 or newer nor a GPU: a CPU-only build"
  exit 0
fi
nvcc=$("$here/fetch_cuda.sh" "$fetched")
say "fetched compiler $(release_of "$nvcc"), $nvcc"
echo "$nvcc"
