// SPDX-License-Identifier: Apache-2.0
//
// The weights of MLP layers in the memory of CUDA devices, and how they get there.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_set.h"
#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "server/core/weights.h"
#include "server/device/weights_placement.h"
#include "server/gpu/cuda_handles.h"
#include "server/weights/mlp_files.h"
#include "server/weights/weights_loader.h"
#include "swiglu/cuda_mlp.h"

namespace swiglu::server {

// A layer on one or more devices. gate and up come first, interleaved, and then down. So a copy
// takes as many bytes as the tensors in the file.
class CudaWeights final : public Weights {
 public:
  // A copy on the device with that ordinal.
  struct Copy {
    int ordinal = 0;
    CudaMemory memory;
  };

  // REQUIRES: at least one copy, each of `layer.size_bytes()`, that the host has waited for.
  CudaWeights(const MlpLayer& layer, std::vector<Copy> copies, std::string sha256);

  // The copy on device `ordinal`. REQUIRES: there is one.
  swiglu::CudaMlpWeights On(int ordinal) const;

 private:
  const Dtype dtype_;
  const int64_t hidden_;
  const int64_t intermediate_;
  const std::vector<Copy> copies_;
};

// Reads layers into device memory, through pinned memory of its own: 32 MiB for each layer that is
// loading. Makes CudaWeights.
class CudaWeightsLoader final : public WeightsLoader {
 public:
  // Puts each layer on `num_replicas` of the devices `ordinals`. `max_tokens`: the most tokens of a
  // batch. REQUIRES: from 1 to ordinals.size() replicas.
  CudaWeightsLoader(std::vector<int> ordinals, int num_replicas, int64_t max_tokens);

  // Besides what the interface promises: runs the first layer of each shape forward and backward to
  // the input, with several numbers of tokens, so that requests do not wait for the driver to load
  // these kernels. INTERNAL if CUDA fails.
  absl::StatusOr<std::shared_ptr<const Weights>> Load(
      const MlpFiles& files, size_t index, const Weights* current,
      absl::FunctionRef<absl::Status(int64_t)> on_progress) override;

 private:
  // A device, a dtype, H and I.
  using Shape = std::tuple<int, Dtype, int64_t, int64_t>;

  // Whether this is the first call for the shape.
  bool IsFirst(const Shape& shape);
  absl::Status WarmUpOn(int ordinal, const CudaWeights& weights);

  const int64_t max_tokens_;
  WeightsPlacement placement_;

  absl::Mutex mutex_;
  absl::flat_hash_set<Shape> warm_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace swiglu::server
