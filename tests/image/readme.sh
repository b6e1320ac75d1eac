#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs the test of README's docker commands with a docker command found or fetched: readme.sh PYTHON ROOT CACHE_FOLDER
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
docker=$("$here/docker_command.sh" "$3")
exec "$1" -B "$here/readme_test.py" "$2" "$docker"
