// SPDX-License-Identifier: Apache-2.0
//
// Sets up CUDA devices and the executor over their lanes. Batches lie in the executor's slabs:
// pinned host memory that every device sees at the same address.
#pragma once

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "server/core/observer.h"
#include "server/device/lane_executor.h"
#include "server/gpu/device_choice.h"
#include "server/memory/slab_pool.h"

namespace swiglu::server {

struct CudaExecutorOptions {
  // The devices to use; at least one.
  std::vector<DeviceInfo> devices;
  // Batches in flight on each device. >= 1.
  int lanes_per_device = 2;
  // The slab pool's memory, all of it pinned.
  CachingSlabPoolOptions memory;
  // Told of device errors; may be nullptr. Must outlive the executor.
  Observer* observer = nullptr;
};

// Sets up the devices and runs every kernel on each lane, so that the first request finds all
// loaded. Takes some hundred milliseconds per device. INVALID_ARGUMENT for options out of range,
// FAILED_PRECONDITION for a device that cannot use host memory directly, RESOURCE_EXHAUSTED for one
// without memory for its lanes, else what CUDA said.
absl::StatusOr<std::unique_ptr<LaneExecutor>> CreateCudaExecutor(CudaExecutorOptions options);

}  // namespace swiglu::server
