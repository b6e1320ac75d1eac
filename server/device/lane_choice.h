// SPDX-License-Identifier: Apache-2.0
//
// Which device takes the next batch. Pure functions on plain values.
#pragma once

#include <algorithm>
#include <cstdint>
#include <tuple>

#include "absl/types/span.h"

namespace swiglu::server {

// How busy one device is.
struct DeviceLoad {
  // Bytes that the batches in flight read and write. Resident batches and those of MLPs do not
  // count.
  int64_t outstanding_bytes = 0;
  int num_free_lanes = 0;
  // Such bytes of all batches that the device has got until now. `GiveBatch` may raise this value.
  int64_t given_bytes = 0;
  int num_resident = 0;  // resident batches and those of MLPs in flight
};

// Whether `a` has fewer outstanding bytes than `b`, or as many and was given fewer until now.
inline bool IsLessLoaded(const DeviceLoad& a, const DeviceLoad& b) {
  return std::tie(a.outstanding_bytes, a.given_bytes) <
         std::tie(b.outstanding_bytes, b.given_bytes);
}

// Returns the position of the device for the next batch; -1 if no lane is free. Of the devices with
// a free lane, chooses the one with the fewest outstanding bytes. If several are equal, as under a
// light load, chooses the one that was given the fewest bytes until now, or the first of these.
inline int ChooseDevice(absl::Span<const DeviceLoad> loads) {
  int best = -1;
  for (int i = 0; i < static_cast<int>(loads.size()); ++i) {
    if (loads[i].num_free_lanes == 0) continue;
    if (best < 0 || IsLessLoaded(loads[i], loads[best])) best = i;
  }
  return best;
}

// Counts a batch of `bytes` for `device`. Then raises the `given_bytes` of every other device to at
// least the `given_bytes` of `device` minus kMaxLagBytes. Without this, a device that was slow for
// a while would later get all batches of a light load.
inline void GiveBatch(absl::Span<DeviceLoad> loads, int device, int64_t bytes) {
  constexpr int64_t kMaxLagBytes = int64_t{64} << 20;
  loads[device].outstanding_bytes += bytes;
  loads[device].given_bytes += bytes;
  for (DeviceLoad& load : loads) {
    load.given_bytes = std::max(load.given_bytes, loads[device].given_bytes - kMaxLagBytes);
  }
}

}  // namespace swiglu::server
