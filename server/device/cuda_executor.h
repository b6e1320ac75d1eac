// SPDX-License-Identifier: Apache-2.0
//
// Sets up CUDA devices and the executor that uses their lanes. Tensors lie in regions or in the
// executor's slabs. A slab is pinned host memory that every device sees at the same address.
#pragma once

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "server/core/observer.h"
#include "server/device/lane_executor.h"
#include "server/device/mlp_shape.h"
#include "server/gpu/device_choice.h"
#include "server/memory/slab_pool.h"

namespace swiglu::server {

struct CudaExecutorOptions {
  // The devices to use; at least one.
  std::vector<DeviceInfo> devices;
  // The most batches in flight on each device, without resident ones. >= 1.
  int lanes_per_device = 2;
  // How many of them take only large batches. Fewer than `lanes_per_device`.
  int large_lanes_per_device = 0;
  // The most resident batches in flight on each device. 0: the executor takes none.
  int resident_lanes_per_device = 0;
  // The MLPs whose batches come; empty: none.
  std::vector<MlpShape> mlp_shapes;
  // The most batches of MLPs in flight on each device, if any come.
  int mlp_lanes_per_device = 0;
  // The slab pool's memory, all of it pinned.
  CachingSlabPoolOptions memory;
  // Receives the device errors; may be nullptr. Must outlive the executor.
  Observer* observer = nullptr;
};

// Sets up the devices and runs every kernel on each lane, so that all kernels are loaded before the
// first request, except those of MLPs. Most of these are loaded with the weights. Takes a few
// hundred milliseconds per device. INVALID_ARGUMENT: an option is out of range.
// FAILED_PRECONDITION: a device cannot use host memory directly, or is too old for MLPs.
// RESOURCE_EXHAUSTED: there is too little memory for the lanes or for the first slabs. INTERNAL:
// another error of a device, or its results are wrong.
absl::StatusOr<std::unique_ptr<LaneExecutor>> CreateCudaExecutor(CudaExecutorOptions options);

}  // namespace swiglu::server
