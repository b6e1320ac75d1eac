// SPDX-License-Identifier: Apache-2.0
//
// Runs the batches of MLPs on the weights that a device has: gathers their tokens, makes the pass,
// and scatters the results. Part of a CUDA lane.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "server/core/executor.h"
#include "server/device/mlp_shape.h"
#include "server/gpu/cuda_handles.h"

namespace swiglu::server {

// Device memory for one batch, and events that measure its phases. `Create` allocates all CUDA
// memory. Not thread-safe.
class CudaMlpPath {
 public:
  // Allocates on device `ordinal` what a batch of any of `shapes` needs.
  static absl::StatusOr<CudaMlpPath> Create(int ordinal, const std::vector<MlpShape>& shapes);

  // Enqueues the copies and kernels of `batch` on `stream`, a stream of the current device. Does
  // not synchronize. A tensor is used where it lies if it is whole, in the device's memory and
  // aligned; an output also must not replace an input. On error, a part of the work may have been
  // enqueued. REQUIRES: the previous batch is done; the weights have a copy on this device; the
  // batch has one of the shapes.
  cudaError_t Enqueue(const Batch& batch, cudaStream_t stream);

  // Adds the times of the last batch's phases to `times`. REQUIRES: that batch is done.
  cudaError_t AddTimes(PhaseTimes& times) const;

 private:
  CudaMlpPath() = default;

  int ordinal_ = 0;
  CudaMemory d_buffer_;  // the workspace, and then a place for each tensor
  int64_t workspace_bytes_ = 0;
  int64_t tensor_bytes_ = 0;  // of each place
  // About the last batch: it had tokens; tensors of it were copied in, and out.
  bool has_work_ = false;
  bool gathers_ = false;
  bool scatters_ = false;
  // In the order of recording. The first and the last only where the batch gathers and scatters.
  CudaEvent begun_, gathered_, computed_, scattered_;
};

}  // namespace swiglu::server
