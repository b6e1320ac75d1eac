#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Which failures of the image's build are a skip: fetch_failure_test.sh. The lines are apt-get's and pip's own.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
log=$(mktemp)
trap 'rm -f "$log"' EXIT
failures=0

# expect EXIT_CODE LINE...: a log of these lines.
expect() {
  local want=$1 got=0
  shift
  printf '%s\n' "$@" >"$log"
  "$here/fetch_failure.sh" "$log" >/dev/null || got=$?
  if [ "$got" != "$want" ]; then
    echo "exit code $got, want $want, for: $*"
    failures=1
  fi
}

expect 0 "W: Failed to fetch http://mirror.invalid/dists/bookworm/InRelease  Temporary failure resolving 'mirror.invalid'"
expect 0 "Err:1 http://mirror.invalid bookworm InRelease" "  Could not connect to mirror.invalid:80 (192.0.2.1), connection timed out"
expect 0 "WARNING: Retrying: NewConnectionError: Failed to establish a new connection: [Errno 101] Network is unreachable" \
  "ERROR: Could not find a version that satisfies the requirement nvidia-nvvm==13.0.88 (from versions: none)"
expect 1 "server/main.cc:12:3: error: expected ';' before 'return'"
expect 0 "W: Failed to fetch http://mirror.invalid/dists/bookworm/InRelease  Temporary failure resolving 'mirror.invalid'" \
  "E: Unable to locate package cmake"
expect 1 "E: Unable to locate package libnothing-dev"
expect 1 "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE."
expect 1 "ERROR: Could not find a version that satisfies the requirement x==9 (from versions: 1.0, 2.0)"
exit $failures
