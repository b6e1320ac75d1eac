// SPDX-License-Identifier: Apache-2.0
//
// Which device takes the next batch. A pure function.
#pragma once

#include <cstdint>
#include <tuple>

#include "absl/types/span.h"

namespace swiglu::server {

// How busy one device is.
struct DeviceLoad {
  int64_t outstanding_bytes = 0;  // read and written by the batches in flight
  int num_free_lanes = 0;
  int64_t total_bytes = 0;  // of all batches that it was ever given
};

// The position of the device with the fewest bytes outstanding among those with a free lane. Of
// equals, which all are under a light load, the one that was given the fewest until now, then the
// first. -1 when no lane is free.
inline int ChooseDevice(absl::Span<const DeviceLoad> loads) {
  int best = -1;
  for (int i = 0; i < static_cast<int>(loads.size()); ++i) {
    if (loads[i].num_free_lanes == 0) continue;
    if (best < 0 || std::tie(loads[i].outstanding_bytes, loads[i].total_bytes) <
                        std::tie(loads[best].outstanding_bytes, loads[best].total_bytes)) {
      best = i;
    }
  }
  return best;
}

}  // namespace swiglu::server
