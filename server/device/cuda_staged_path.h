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

// A device buffer, and events that measure the phases of the portions in it. The buffer holds one
// portion at a time. `Create` allocates all CUDA memory. Not thread-safe.
class CudaStagedPath {
 public:
  // Allocates a buffer of kLaneBufferBytes on device `ordinal`.
  static absl::StatusOr<CudaStagedPath> Create(int ordinal);

  // Enqueues on `stream`, a stream of the current device, the copies that bring `portion` in, and
  // then the kernel. Does not synchronize, and writes no output of the batch. On error, a part of
  // this work may have been enqueued. REQUIRES: the previous portion is done.
  cudaError_t EnqueueCompute(const Model& model, const Portion& portion, cudaStream_t stream);

  // Enqueues the copies out in the same way. REQUIRES: `portion` is that of the last
  // EnqueueCompute.
  cudaError_t EnqueueCopyOut(const Model& model, const Portion& portion, cudaStream_t stream);

  // Adds the times of the last portion's phases to `times`. REQUIRES: that portion is done.
  cudaError_t AddTimes(PhaseTimes& times) const;

 private:
  CudaStagedPath() = default;

  CudaMemory d_buffer_;
  CudaEvent begun_, copied_in_, computed_, copied_out_;  // in the order of recording
};

}  // namespace swiglu::server
