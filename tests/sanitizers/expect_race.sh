#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# `expect_race.sh PROGRAM FUNCTION` runs a program with a race in FUNCTION and passes only if ThreadSanitizer reports that
# race, no other, and nothing else goes wrong: the negative control of what the tests tell it about gRPC and Abseil.
set -euo pipefail

if ! command -v llvm-symbolizer-14 >/dev/null && ! command -v llvm-symbolizer >/dev/null; then
  echo "expect_race: there is no llvm-symbolizer-14 (Debian's package llvm-14), without which a report names no function"
  exit 1
fi
rc=0
output=$("$1" 2>&1) || rc=$?
races=$(grep '^SUMMARY: ThreadSanitizer: data race' <<<"$output" || true)
fail() {
  echo "$output"
  echo "expect_race: $1"
  exit 1
}
[ -n "$races" ] || fail "no race was reported"
! grep -v "$2" <<<"$races" || fail "other races than that in $2 were reported"
grep -q '^\[  PASSED  \]' <<<"$output" || fail "the program did not come to its end"
[ "$rc" -eq 66 ] || fail "exit status $rc, not ThreadSanitizer's 66"
echo "$races"
