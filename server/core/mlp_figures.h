// SPDX-License-Identifier: Apache-2.0
//
// What the metrics tell about the weights of one MLP, as plain values.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <vector>

#include "absl/time/time.h"
#include "server/core/weights.h"

namespace swiglu::server {

// How a load of an MLP's weights ended. The metric label `result`.
enum class LoadResult : uint8_t { kSuccess, kFailure, kCancelled };
inline constexpr int kNumLoadResults = 3;

// Both the load at the start of the server and reloads are loads.
struct LoadFigures {
  bool is_loading = false;
  // Bytes of the files that the load under way has read, or that the last one had read at its end.
  int64_t loaded_bytes = 0;
  // The loads that have ended, by LoadResult.
  std::array<int64_t, kNumLoadResults> num_ended{};
  // When the last load that succeeded ended, and how long it took. The epoch and 0 before the first
  // one.
  absl::Time last_success = absl::UnixEpoch();
  std::chrono::nanoseconds last_duration{0};
};

struct MlpFigures {
  LoadFigures loads = {};
  // Bytes that each load reads.
  int64_t size_bytes = 0;
  // The copies of the current weights of all layers.
  std::vector<WeightsPlace> places = {};
};

}  // namespace swiglu::server
