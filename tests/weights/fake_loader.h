// SPDX-License-Identifier: Apache-2.0
//
// A loader that reads weights and does nothing with them, and the weights that it makes.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "server/core/executor.h"
#include "server/core/weights.h"
#include "server/weights/weights_loader.h"

namespace swiglu::server {

class ReadWeights final : public Weights {
 public:
  ReadWeights(std::string sha256, int64_t size_bytes)
      : Weights(std::move(sha256), {{kCpuDevice, size_bytes}}) {}
};

// Thread-safe, if `before` is.
class FakeLoader final : public WeightsLoader {
 public:
  // Called at the beginning of each load, with the number of the layer and the weights that are to
  // be replaced.
  std::function<absl::Status(int layer, const Weights* current)> before = [](int, const Weights*) {
    return absl::OkStatus();
  };

  absl::StatusOr<std::shared_ptr<const Weights>> Load(
      const MlpFiles& files, size_t index, const Weights* current,
      absl::FunctionRef<absl::Status(int64_t)> on_progress) override {
    const MlpLayer& layer = files.layers()[index];
    if (absl::Status status = before(layer.number, current); !status.ok()) return status;
    std::vector<std::byte> memory(static_cast<size_t>(layer.size_bytes()));
    const std::span<std::byte> all(memory);
    const auto one = static_cast<size_t>(layer.matrix_bytes());
    auto hash =
        files.ReadLayer(index, {all.first(one), all.subspan(one, one), all.last(one)}, on_progress);
    if (!hash.ok()) return hash.status();
    return std::make_shared<const ReadWeights>(*std::move(hash), layer.size_bytes());
  }
};

}  // namespace swiglu::server
