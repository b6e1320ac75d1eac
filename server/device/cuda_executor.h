// SPDX-License-Identifier: Apache-2.0
//
// Sets up CUDA devices and the executor that uses their lanes. Tensors lie in the executor's slabs:
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
  // Batches in flight on each device, without resident ones. >= 1.
  int lanes_per_device = 2;
  // Resident batches in flight on each device: those of CUDA regions. 0: it takes none.
  int resident_lanes_per_device = 0;
  // The slab pool's memory, all of it pinned.
  CachingSlabPoolOptions memory;
  // Told of device errors; may be nullptr. Must outlive the executor.
  Observer* observer = nullptr;
};

// Sets up the devices and runs every kernel on each lane, so that all kernels are loaded before the
// first request. Takes some hundred milliseconds per device. INVALID_ARGUMENT: an option is out of
// range. FAILED_PRECONDITION: a device cannot use host memory directly. RESOURCE_EXHAUSTED: a
// device has no memory for its lanes. Otherwise it returns the error that CUDA reported.
absl::StatusOr<std::unique_ptr<LaneExecutor>> CreateCudaExecutor(CudaExecutorOptions options);

}  // namespace swiglu::server
