#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# The demonstration itself, on programs that are built already: starts a server on free ports, sends the examples and a
# language model's real activations, has every result checked against float64, shows the live metrics and stops the server.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: tests/demo/run.sh --server=PROGRAM --client=PROGRAM --tool=PROGRAM --folder=FOLDER [--rows=N] [--device=DEVICE]
  --folder   where inputs and results lie; inputs found there are used again
  --rows     rows of 11008 values in the examples, an even number; 2048 unless told
  --device   passed on to the server: auto (unless told), cpu or cuda
TEXT
}

rows=2048 device=auto server='' client='' tool='' folder=''
for argument in "$@"; do
  case "$argument" in
    --server=*) server=${argument#*=} ;;
    --client=*) client=${argument#*=} ;;
    --tool=*) tool=${argument#*=} ;;
    --folder=*) folder=${argument#*=} ;;
    --rows=*) rows=${argument#*=} ;;
    --device=*) device=${argument#*=} ;;
    *) usage >&2; exit 2 ;;
  esac
done
if [ -z "$server" ] || [ -z "$client" ] || [ -z "$tool" ] || [ -z "$folder" ]; then usage >&2; exit 2; fi
activations=$(cd "$(dirname "$0")/../golden" && pwd)/smollm2_activations.safetensors
mkdir -p "$folder/out"

# 1. The inputs.
if [ "$(cat "$folder/rows" 2>/dev/null)" != "$rows" ]; then
  echo "inputs: e, g and DW of N(0,1) into $folder"
  "$tool" make "$folder" "$rows"
  echo "$rows" >"$folder/rows"
fi

# 2. The server, on ports that are free; its log says which. However this script ends, the server ends with it.
log=$folder/server.log
: >"$log"
"$server" --grpc_address=127.0.0.1:0 --metrics_address=127.0.0.1:0 --device="$device" 2>"$log" &
pid=$!
stop_server() {
  local rc=0
  if [ -n "$pid" ]; then
    kill -TERM "$pid" 2>/dev/null || true
    wait "$pid" || rc=$?
    pid=''
    echo "server: stopped by SIGTERM, exit code $rc"
  fi
  return $rc
}
trap 'stop_server || true' EXIT

# Prints what follows `words` in the server's log, up to a space.
logged() { sed -n "s|.*$1\([^ ]*\).*|\1|p" "$log" | head -n 1; }

is_serving() {
  address=$(logged 'serving gRPC on ')
  metrics=$(logged 'metrics on http://')
  [ -n "$address" ] && [ -n "$metrics" ] && "$server" --health --grpc_address="$address" >/dev/null 2>&1
}
deadline=$((SECONDS + 60))
until is_serving; do
  if ! kill -0 "$pid" 2>/dev/null || [ $SECONDS -ge $deadline ]; then
    cat "$log" >&2
    echo "server: did not come up" >&2
    exit 1
  fi
  sleep 0.02
done
"$client" status --server="$address"
echo

# 3. The calls. Each prints the time from the request to its answer, what moved in both directions, and what the check says.
failed=0
call() {
  local title=$1 said verdict
  local -n command=$2 files=$3
  said=$("$client" "${command[@]}" --server="$address" --overwrite)
  verdict=$("$tool" check "${files[@]}") || failed=$((failed + 1))
  awk -v title="$title" -v said="${said##*: }" -v verdict="$verdict" \
    'BEGIN { split(said, word, " "); printf "%-40s %9.2f ms %6.2f GB/s  %s\n", title, word[1], word[3], verdict }'
}

# shellcheck disable=SC2034  # handed to call by name
examples() {
  local arguments names layer out=$folder/out
  names=("$folder/forward_e.npy" "$folder/forward_g.npy" "$out/forward_h.npy")
  arguments=(forward --e="${names[0]}" --g="${names[1]}" --out="${names[2]}")
  call "forward  FP16 (2, $((rows / 2)), 11008)" arguments names

  names=("$folder/backward_dw.npy" "$folder/backward_e.npy" "$folder/backward_g.npy" "$out/h.npy" "$out/df.npy" "$out/de.npy")
  arguments=(backward --dw="${names[0]}" --e="${names[1]}" --g="${names[2]}" --out_dir="$out")
  call "backward FP16 ($rows, 11008)" arguments names

  for layer in 0 14 29; do
    names=("$activations:layer$layer.e" "$activations:layer$layer.g" "$out/layer$layer.safetensors:h")
    arguments=(forward --e="${names[0]}" --g="${names[1]}" --out="${names[2]%:h}")
    call "forward  BF16 (33, 1536) SmolLM2 layer $layer" arguments names
  done
}
examples

# 4. The live metrics: a plain GET, so that no other program is needed.
exec {page}<>"/dev/tcp/${metrics%%[:/]*}/$(sed 's|.*:\([0-9]*\)/.*|\1|' <<<"$metrics")"
printf 'GET /metrics HTTP/1.0\r\n\r\n' >&"$page"
tr -d '\r' <&"$page" >"$folder/metrics.txt"
exec {page}>&-
echo
echo "metrics: http://$metrics, of which"
grep -E '^swiglu_(requests_total.*code="OK"|request_duration_seconds_(sum|count)|elements_total|batches_total).* [^ ]*[1-9][^ ]*$' \
  "$folder/metrics.txt" | sed 's/^/  /'
echo

# 5. The end.
trap - EXIT
stop_server || failed=$((failed + 1))
if [ "$failed" -ne 0 ]; then
  echo "demo: FAILED"
  exit 1
fi
echo "demo: every result is right"
