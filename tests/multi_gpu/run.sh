#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs everything that two GPUs are for, in the folder that pack.sh makes: the golden tables on each device, in one process
# and by the kernels alone, a mixed load, devices that fail, and the measurement. The measurement's JSON goes to the folder
# named, by default the current one. Ends with 77 where there are not two devices.
set -euo pipefail
results=$(realpath "${1:-.}")
cd "$(dirname "$0")/../.."
export PYTHONPATH=tests/wire:tests/bench/wire PYTHONDONTWRITEBYTECODE=1 LD_LIBRARY_PATH=$PWD/lib
export SWIGLU_GOLDEN_DIR=$PWD/tests/golden
programs=(--server=bin/swiglu-server --client=bin/swiglu --bench=bin/swiglu-bench)

num_devices=$({ nvidia-smi --list-gpus 2>/dev/null || true; } | wc -l)
if [ "$num_devices" -lt 2 ]; then
  echo "skipped: two GPUs are needed, and there are $num_devices"
  exit 77
fi
nvidia-smi topo --matrix || true

rc=0
# Prints a heading and runs a command; one that fails does not keep the others from running.
run() {
  echo "== $1 ($(date +%T))"
  "${@:2}" || { rc=1; echo "FAILED: $1"; }
}
for ((device = 0; device < num_devices; ++device)); do
  run "kernels on device $device" env "CUDA_VISIBLE_DEVICES=$device" \
    bin/kernels_cuda_test '--gtest_filter=*CudaGoldenTest*' --gtest_brief=1
done
run "one server on two devices" python3 tests/multi_gpu/two_devices_test.py "${programs[@]}" -v CudaDevicesTest CudaMlpsTest
run "devices that fail" python3 tests/wire/cuda_fault_test.py --cuda_fault_server=bin/cuda_fault_server "${programs[@]}" -v
run "what the second device is worth" python3 tests/multi_gpu/two_gpus.py "${programs[@]}" --rounds=5 \
  "--json=$results/two_gpus.json"
exit $rc
