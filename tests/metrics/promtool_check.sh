#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Gives the page to `promtool check metrics`, which must have nothing to say.
#
#   promtool_check.sh PAGE_PROGRAM PROMETHEUS_FOLDER
#
# Exit code 77: promtool could not be had, and why.
set -eu
page_program=$1
folder=$2

"$(dirname "$0")/fetch_prometheus.sh" "$folder"
"$page_program" >"$folder/page.txt"
status=0
complaints=$("$folder/promtool" check metrics <"$folder/page.txt" 2>&1) || status=$?
if [ "$status" != 0 ] || [ -n "$complaints" ]; then
  echo "promtool check metrics: exit $status"
  echo "$complaints"
  exit 1
fi
echo "promtool has nothing to say about $(grep -c -v '^#' "$folder/page.txt") lines"
