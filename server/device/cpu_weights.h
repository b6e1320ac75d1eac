// SPDX-License-Identifier: Apache-2.0
//
// The weights of MLP layers in the host's memory, packed for the CPU's kernels.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "server/core/executor.h"
#include "server/core/weights.h"
#include "server/weights/mlp_files.h"
#include "server/weights/weights_loader.h"
#include "swiglu/cpu_mlp.h"

namespace swiglu::server {

class CpuWeights final : public Weights {
 public:
  CpuWeights(std::unique_ptr<const swiglu::CpuMlpWeights> packed, std::string sha256)
      : Weights(std::move(sha256), {{kCpuDevice, packed->size_bytes()}}),
        packed_(std::move(packed)) {}

  const swiglu::CpuMlpWeights& packed() const { return *packed_; }

 private:
  const std::unique_ptr<const swiglu::CpuMlpWeights> packed_;
};

// Reads a layer into memory of its own, and packs it for forward and for backward. So a layer takes
// twice its bytes in the file, and three times while it loads. Makes CpuWeights.
class CpuWeightsLoader final : public WeightsLoader {
 public:
  absl::StatusOr<std::shared_ptr<const Weights>> Load(
      const MlpFiles& files, size_t index, const Weights* current,
      absl::FunctionRef<absl::Status(int64_t)> on_progress) override;
};

}  // namespace swiglu::server
