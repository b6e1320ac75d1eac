// SPDX-License-Identifier: Apache-2.0
//
// Copies a portion to device memory, runs the kernel on it there, and copies the results back. Part
// of a CUDA lane.
#pragma once

#include <cuda_runtime_api.h>

#include "absl/status/statusor.h"
#include "server/device/launch_plan.h"
#include "server/gpu/cuda_handles.h"

namespace swiglu::server {

// A device buffer, and the events that measure the times of the portions that pass through it. One
// portion at a time. It allocates all CUDA memory in `Create`. Not thread-safe.
class CudaStagedPath {
 public:
  // Room for portions of kLaneBufferBytes on that device.
  static absl::StatusOr<CudaStagedPath> Create(int ordinal);

  // Enqueues copies in and kernel of `portion` on `stream`, a stream of the current device; does
  // not synchronize, and touches no output of the batch. On error, part of it may have been
  // enqueued. REQUIRES: the portion before is done.
  cudaError_t EnqueueCompute(const Model& model, const Portion& portion, cudaStream_t stream);

  // Likewise the copies out. REQUIRES: the portion is the one of the last EnqueueCompute.
  cudaError_t EnqueueCopyOut(const Model& model, const Portion& portion, cudaStream_t stream);

  // Adds the times of the last portion's phases to `times`. REQUIRES: it is done.
  cudaError_t AddTimes(PhaseTimes& times) const;

 private:
  CudaStagedPath() = default;

  CudaMemory d_buffer_;
  CudaEvent begun_, copied_in_, computed_, copied_out_;  // in the order in which they happen
};

}  // namespace swiglu::server
