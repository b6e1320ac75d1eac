// SPDX-License-Identifier: Apache-2.0
//
// Turns the region parts that a request names into the addresses of its tensors. Checks bounds,
// alignment, overlaps and devices, before the request shares a batch with other requests.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "server/codec/infer_decoder.h"
#include "server/core/clock.h"
#include "server/core/executor.h"
#include "server/core/region.h"
#include "server/regions/region_registry.h"

namespace swiglu::server {

// The addresses of a request's tensors that lie in regions, the outputs by number; nullptr for the
// tensors in the message.
struct RegionTensors {
  std::array<std::byte*, kMaxTensors> inputs{};
  std::array<std::byte*, kMaxOutputs> outputs{};
  Placement placement;
  // The regions in use. They stay open as long as they are in this list.
  std::vector<RegionUse> uses;
  // The bytes of the inputs and outputs in regions, by RegionKind.
  std::array<int64_t, kNumRegionKinds> bytes_in{};
  std::array<int64_t, kNumRegionKinds> bytes_out{};
};

// Finds the tensors of `plan` that lie in regions; nullptr if there are none. An output may lie
// exactly where the input of the same position lies, unless it is a gradient. Otherwise it must
// overlap no other tensor.
// Errors: NOT_FOUND for a region that is not registered, else INVALID_ARGUMENT.
absl::StatusOr<std::shared_ptr<RegionTensors>> FindRegionTensors(const InferPlan& plan,
                                                                 const RegionRegistry& registry,
                                                                 Clock::time_point now);

}  // namespace swiglu::server
