#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Fails on a shell script that shellcheck finds fault with.
set -euo pipefail
cd "$1"
if ! command -v shellcheck >/dev/null; then
  echo "skipped: no shellcheck"
  exit 77
fi
PYTHONPATH=tests/style python3 -B -c 'import source_tree; print(*source_tree.scripts("."), sep="\n")' |
  grep -v '\.py$' | xargs shellcheck --severity=warning --external-sources
