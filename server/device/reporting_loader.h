// SPDX-License-Identifier: Apache-2.0
//
// Reports the device that fails for good while weights are loaded, so that the process ends as
// after any other device fault.
#pragma once

#include <cstddef>
#include <memory>
#include <utility>

#include "server/gpu/device_faults.h"
#include "server/weights/weights_loader.h"

namespace swiglu::server {

// Loads like `loader`. Before a `Load` returns a StickyStatus, reports it to `faults`.
class ReportingLoader final : public WeightsLoader {
 public:
  // `faults` must outlive this object.
  ReportingLoader(std::unique_ptr<WeightsLoader> loader, DeviceFaults* faults)
      : loader_(std::move(loader)), faults_(faults) {}

  absl::StatusOr<std::shared_ptr<const Weights>> Load(
      const MlpFiles& files, size_t index, const Weights* current,
      absl::FunctionRef<absl::Status(int64_t)> on_progress) override {
    absl::StatusOr<std::shared_ptr<const Weights>> weights =
        loader_->Load(files, index, current, on_progress);
    if (!weights.ok()) faults_->ReportSticky(weights.status());
    return weights;
  }

 private:
  const std::unique_ptr<WeightsLoader> loader_;
  DeviceFaults* const faults_;
};

}  // namespace swiglu::server
