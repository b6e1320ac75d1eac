#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs a Python test that needs packages from the Python package registry, pinned by version and hash, out of an environment
# of its own: `run_with_packages.sh PYTHON ENVIRONMENT REQUIREMENTS TEST [ARGUMENT]...`. Exits with 77, and says why, where the packages
# cannot be had; a registry that has them in other versions or with other hashes is a failure.
set -euo pipefail
python=$1 environment=$2 requirements=$3 test=$4
shift 4

skip() {
  echo "skipped: $1"
  exit 77
}

platform=$("$python" -c 'import platform, sys; print(sys.implementation.name, *sys.version_info[:2], platform.machine())')
case "$platform" in
  "cpython 3 11 x86_64" | "cpython 3 12 x86_64") ;;
  *) skip "packages are pinned for CPython 3.11 and 3.12 on x86-64, not for $platform" ;;
esac

# The tests share the environment, so only one of them makes it.
mkdir -p "$(dirname "$environment")"
exec 9>"$environment.lock"
flock 9
if ! cmp -s "$requirements" "$environment/requirements.txt"; then
  rm -rf "$environment"
  log=$environment.log
  if ! "$python" -m venv "$environment" >"$log" 2>&1; then skip "no environment: $(tail -n 1 "$log")"; fi
  if ! "$environment/bin/pip" install --quiet --disable-pip-version-check --retries 5 --require-hashes --no-deps \
    --only-binary=:all: --requirement "$requirements" >"$log" 2>&1; then
    cat "$log"
    if grep -qE 'DO NOT MATCH THE HASHES|from versions: [0-9]' "$log"; then exit 1; fi
    skip "packages cannot be installed: $(grep -m 1 '^ERROR' "$log" || tail -n 1 "$log")"
  fi
  cp "$requirements" "$environment/requirements.txt"
fi
exec 9>&-

exec "$environment/bin/python" -B "$test" "$@"
