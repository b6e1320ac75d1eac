#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Installs the Debian 12 or Ubuntu 24.04 packages that a build, the tests or the sanitizer runs need. Calls apt only for
# what is missing, so a second run takes no time. Uses sudo when it is not root.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: deploy/setup.sh GROUP...
  build   compilers, CMake and the libraries that the programs and their tests are built on
  python  what the Python client is built with besides
  cuda    what deploy/fetch_cuda.sh needs
  text    what ./demo --text needs
  tests   what the tests run besides their own programs, and clang with its sanitizers, whose reports need llvm's symbolizer
  image   the engine that the tests of the container image build and run it with
  long    what ./check --long adds: clang-tidy, PyTorch, what perf_analyzer needs, and Go and Java with gRPC
TEXT
}

build_packages=(
  ca-certificates ccache cmake g++ git ninja-build pkg-config python3
  libabsl-dev libgrpc++-dev libprotobuf-dev protobuf-compiler protobuf-compiler-grpc
  libcurl4-openssl-dev libgoogle-perftools-dev libssl-dev prometheus-cpp-dev zlib1g-dev
  libcli11-dev libhwy-dev libspdlog-dev nlohmann-json3-dev
  libbenchmark-dev libgmock-dev libgtest-dev
)
python_packages=(binutils patchelf pybind11-dev python3-dev)
cuda_packages=(ca-certificates python3 python3-venv)
text_packages=(ca-certificates python3 python3-venv)
test_packages=(
  ca-certificates clang-14 clang-format-14 doxygen git groff-base libclang-rt-14-dev llvm-14 python3 python3-venv shellcheck
)
image_packages=(aardvark-dns buildah crun debian-archive-keyring iproute2 iptables mmdebstrap netavark podman util-linux)
long_packages=(
  clang-tidy-14 libb64-0d python3-torch
  golang-github-golang-protobuf-1-5-dev golang-go golang-google-grpc-dev protobuf-compiler protoc-gen-go-1-5 protoc-gen-go-grpc
  default-jdk-headless libgeronimo-annotation-1.3-spec-java libgoogle-gson-java libgrpc-java libguava-java libnetty-java
  libperfmark-java libprotobuf-java protobuf-compiler-grpc-java-plugin
)

wanted=()
for group in "$@"; do
  case "$group" in
    build) wanted+=("${build_packages[@]}") ;;
    python) wanted+=("${python_packages[@]}") ;;
    cuda) wanted+=("${cuda_packages[@]}") ;;
    text) wanted+=("${text_packages[@]}") ;;
    tests) wanted+=("${test_packages[@]}") ;;
    image) wanted+=("${image_packages[@]}") ;;
    long) wanted+=("${long_packages[@]}") ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
  esac
done
if [ ${#wanted[@]} -eq 0 ]; then usage >&2; exit 2; fi

if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
  echo "setup: no apt on this machine; install what these Debian packages hold: ${wanted[*]}" >&2
  exit 1
fi

is_installed() { [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

missing=()
while read -r package; do
  is_installed "$package" || missing+=("$package")
done < <(printf '%s\n' "${wanted[@]}" | sort -u)
if [ ${#missing[@]} -eq 0 ]; then
  echo "setup: every package is there ($*)"
  exit 0
fi

as_root=()
if [ "$(id -u)" -ne 0 ]; then
  if ! command -v sudo >/dev/null; then
    echo "setup: neither root nor sudo; as root, run: apt-get install --no-install-recommends ${missing[*]}" >&2
    exit 1
  fi
  as_root=(sudo)
fi

# Runs apt-get with the arguments given, silently unless it fails three times; a failed fetch is worth a second try.
log=$(mktemp)
trap 'rm -f "$log"' EXIT
apt() {
  local attempt
  for attempt in 1 2 3; do
    if "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -y \
      -o Acquire::Retries=3 -o DPkg::Lock::Timeout=120 -o Dpkg::Use-Pty=0 "$@" </dev/null >"$log" 2>&1; then
      return 0
    fi
    if [ "$attempt" -lt 3 ]; then
      echo "setup: apt-get $1 failed, attempt $attempt of 3: $(grep -m 1 '^E:' "$log" || tail -n 1 "$log")" >&2
      sleep $((attempt * 5))
    fi
  done
  cat "$log" >&2
  echo "setup: apt-get $1 failed three times" >&2
  return 1
}

started=$SECONDS
echo "setup: installing ${#missing[@]} packages and what they depend on: ${missing[*]}"
apt update
# It succeeds without a mirror, too; what apt-get install then says does not tell why.
grep '^W: Failed' "$log" >&2 || true
apt install --no-install-recommends "${missing[@]}"
echo "setup: installed in $((SECONDS - started)) s"
