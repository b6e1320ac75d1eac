// SPDX-License-Identifier: Apache-2.0
//
// The interface through which weights get from files to a device. `server/device` implements it for
// each kind of device.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "server/core/weights.h"
#include "server/weights/mlp_files.h"

namespace swiglu::server {

// Makes weights ready for the batches of one executor. Thread-safe: several layers may load at the
// same time.
class WeightsLoader {
 public:
  virtual ~WeightsLoader() = default;

  // Reads the layer `files.layers()[index]`. Blocks. Calls `on_progress` like MlpFiles::ReadLayer.
  // `current`: the weights that these will replace, or nullptr; they go to the same devices.
  // RESOURCE_EXHAUSTED if a device has no room, with what is needed. Otherwise fails like
  // MlpFiles::ReadLayer. REQUIRES: index < files.layers().size().
  virtual absl::StatusOr<std::shared_ptr<const Weights>> Load(
      const MlpFiles& files, size_t index, const Weights* current,
      absl::FunctionRef<absl::Status(int64_t)> on_progress) = 0;
};

}  // namespace swiglu::server
