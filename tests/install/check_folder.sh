#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Installs a build, moves the folder elsewhere, and checks that it stands on its own there: every library beside glibc's
# comes out of it, no path of the build is left in it, nothing asks for a glibc newer than this machine's, and the
# programs run with an empty environment.
#
#   check_folder.sh BUILD FOLDER       FOLDER/moved is left for the test that builds against it
set -euo pipefail
build=$1 folder=$2
# What is built on Debian 12 runs from its glibc on; elsewhere no newer one can be asked for than this machine's.
newest_glibc=$(getconf GNU_LIBC_VERSION | cut -d ' ' -f 2)
glibc='^(ld-linux-x86-64|libanl|libc|libdl|libm|libmvec|libnsl|libpthread|libresolv|librt|libutil)\.so'

rm -rf "$folder"
mkdir -p "$folder"
cmake --install "$build" --prefix "$folder/first" >"$folder/install.log"
mv "$folder/first" "$folder/moved"
moved=$folder/moved
failed=0
fail() { echo "FAILED: $*"; failed=1; }

programs=("$moved/bin/swiglu-server" "$moved/bin/swiglu" "$moved/bin/swiglu-bench")
for program in "${programs[@]}"; do
  [ -x "$program" ] || fail "$program is not there"
done
if [ $failed -ne 0 ]; then exit 1; fi

# Every library is found inside, but for glibc's.
libraries=0
while read -r name path; do
  if [[ $name =~ $glibc ]]; then continue; fi
  libraries=$((libraries + 1))
  [ "$(dirname "$(realpath "$path")")" = "$(realpath "$moved/lib")" ] || fail "$name comes from $path"
done < <(env -i ldd "${programs[@]}" | sed -n 's/^[[:space:]]*\([^ ]*\) => \([^ ]*\).*/\1 \2/p' | sort -u)
[ $libraries -gt 10 ] || fail "only $libraries libraries were looked at"

for file in "${programs[@]}" "$moved"/lib/*.so*; do
  paths=$(readelf -d "$file" | sed -n 's/.*R.*PATH.*\[\(.*\)\]/\1/p')
  case "$paths" in "" | "\$ORIGIN"*) ;; *) fail "$file looks for libraries in $paths" ;; esac
  newest=$(objdump -T "$file" | grep -oE 'GLIBC_[0-9.]+' | sort -Vu | tail -n 1 || true)
  [ -z "$newest" ] || printf '%s\nGLIBC_%s\n' "$newest" "$newest_glibc" | sort -V -C || fail "$file needs $newest; this machine has $newest_glibc"
done
for program in "${programs[@]}"; do
  if grep -qF "$(realpath "$build")" "$program"; then fail "$program holds a path of the build"; fi
done

env -i "$moved/bin/swiglu-server" --version
env -i "$moved/bin/swiglu" --version
env -i "$moved/bin/swiglu-bench" --version

# The manual pages and the completion, which are a component of their own.
cmake --install "$build" --component documentation --prefix "$folder/documentation" >/dev/null
texts=$(cd "$folder/documentation" && find . -type f | sort | tr '\n' ' ')
expected="./share/bash-completion/completions/swiglu ./share/bash-completion/completions/swiglu-bench "
expected+="./share/man/man1/swiglu-bench.1 ./share/man/man1/swiglu.1 ./share/man/man8/swiglu-server.8 "
[ "$texts" = "$expected" ] || fail "the component documentation has $texts"
for text in $texts; do
  cmp "$folder/documentation/$text" "$moved/$text" || fail "$text is not installed"
  [ -s "$moved/$text" ] || fail "$text is empty"
done

# The server answers its own health check, and the client gets an answer. A socket's path has to be short.
log=$folder/server.log
socket=$(mktemp -d)/socket
env -i "$moved/bin/swiglu-server" --grpc_address="unix:$socket" --metrics_address= --device=cpu 2>"$log" &
pid=$!
trap 'kill "$pid" 2>/dev/null || true; rm -rf "$(dirname "$socket")"' EXIT
deadline=$((SECONDS + 30))
until env -i "$moved/bin/swiglu-server" --health --grpc_address="unix:$socket" 2>/dev/null; do
  if ! kill -0 $pid 2>/dev/null || [ $SECONDS -ge $deadline ]; then
    cat "$log"
    fail "the server does not come up"
    exit 1
  fi
  sleep 0.05
done
env -i "$moved/bin/swiglu" status --server="unix:$socket" || fail "swiglu status exits with $?"
env -i "$moved/bin/swiglu-bench" --server="unix:$socket" --requests=10 --warm_up=0 || fail "swiglu-bench exits with $?"
kill -TERM "$pid"
wait "$pid" || fail "the server exits with $?"

echo "$libraries libraries, $(du -sh "$moved" | cut -f 1) in all"
exit $failed
