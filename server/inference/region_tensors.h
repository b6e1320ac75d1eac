// SPDX-License-Identifier: Apache-2.0
//
// From the region parts that a request names to the addresses of its tensors: bounds, alignment,
// overlaps and devices are checked here, before the request meets any other.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "server/core/clock.h"
#include "server/core/executor.h"
#include "server/core/region.h"
#include "server/inference/infer_decoder.h"
#include "server/regions/region_registry.h"

namespace swiglu::server {

// Where the tensors of a request lie that lie in regions; nullptr for those in the message.
struct RegionTensors {
  std::array<std::byte*, kMaxTensors> inputs{};
  std::array<std::byte*, kMaxTensors> outputs{};
  Placement placement;
  // The regions, which stay open meanwhile.
  std::vector<RegionUse> uses;
  // By RegionKind.
  std::array<int64_t, kNumRegionKinds> bytes_in{};
  std::array<int64_t, kNumRegionKinds> bytes_out{};
};

// Finds the tensors of `plan` that lie in regions; nullptr if there are none. An output may lie
// exactly where the input of the same position lies, and otherwise overlaps no other tensor.
// Errors: NOT_FOUND for a region that is not registered; INVALID_ARGUMENT.
absl::StatusOr<std::shared_ptr<RegionTensors>> FindRegionTensors(const InferPlan& plan,
                                                                 const RegionRegistry& registry,
                                                                 Clock::time_point now);

}  // namespace swiglu::server
