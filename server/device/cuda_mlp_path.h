// SPDX-License-Identifier: Apache-2.0
//
// Runs the batches of MLPs on the weights that a device has: gathers their tokens, makes the pass,
// and scatters the results. Part of a CUDA lane.
#pragma once

#include <cuda_runtime_api.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "server/core/executor.h"
#include "server/device/cuda_copies.h"
#include "server/device/mlp_shape.h"
#include "server/gpu/cuda_handles.h"
#include "swiglu/mlp.h"

namespace swiglu::server {

// Device memory for one batch, and events that measure its phases. `Create` allocates all CUDA
// memory, except that gradients of weights that are not in the device's memory get some while they
// are computed. Not thread-safe.
class CudaMlpPath {
 public:
  // Allocates on device `ordinal` what a batch of any of `shapes` needs.
  static absl::StatusOr<CudaMlpPath> Create(int ordinal, const std::vector<MlpShape>& shapes);

  // Enqueues the copies and kernels of `batch` on `stream`, a stream of the current device. Does
  // not synchronize. A tensor is used where it lies if it is whole, in the device's memory and
  // aligned; an output also must not replace an input. A batch that wants gradients of weights is
  // computed in pieces of GradientRows. On error, a part of the work may have been enqueued.
  // REQUIRES: the previous batch is done; the weights have a copy on this device; the batch has one
  // of the shapes.
  cudaError_t Enqueue(const Batch& batch, cudaStream_t stream);

  // Adds the times of the last batch's phases to `times`. REQUIRES: that batch is done.
  cudaError_t AddTimes(PhaseTimes& times) const;

 private:
  CudaMlpPath() = default;

  // The copies of a pass, and its tensors, each in one piece in the device's memory. An output that
  // is not wanted stays nullptr.
  struct PassPlan {
    CudaCopies in;
    CudaCopies out;
    std::array<const std::byte*, kMaxTensors> inputs = {};
    std::array<std::byte*, kMaxTensors> outputs = {};
  };
  PassPlan PlanPass(const Batch& batch) const;
  // The kernels of a pass. `gradients` are in the device's memory.
  cudaError_t EnqueuePass(const Batch& batch, const PassPlan& plan,
                          const swiglu::MlpWeightGradients& gradients, cudaStream_t stream) const;
  cudaError_t EnqueueGradients(const Batch& batch, cudaStream_t stream);
  // All passes of a batch that wants gradients.
  cudaError_t EnqueuePieces(const Batch& batch, swiglu::MlpWeightGradients gradients,
                            cudaStream_t stream);

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
