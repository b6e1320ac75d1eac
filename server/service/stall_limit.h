// SPDX-License-Identifier: Apache-2.0
//
// How long a caller may take to send a message or to take an answer, before it counts as stalled.
// gRPC does not tell how much of a message has arrived, so the limit depends on the message's size.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>

#include "server/core/clock.h"

namespace swiglu::server {

struct StallLimit {
  // The limit for a message of 0 bytes. > 0.
  Clock::duration base = std::chrono::seconds(30);
  // The rate that even the slowest caller is expected to reach.
  static constexpr int64_t kBytesPerSecond = int64_t{16} << 20;

  // The limit while the server drains. It is short, because an answer that nobody takes must not
  // hold up the end of the drain.
  StallLimit InDrain() const { return {std::min<Clock::duration>(base, kMostInDrain)}; }
  static constexpr std::chrono::seconds kMostInDrain{5};

  // The time by which a message of `bytes` must be transferred if the transfer begins at `start`.
  Clock::time_point Due(Clock::time_point start, int64_t bytes) const {
    return start + base + std::chrono::milliseconds(bytes / (kBytesPerSecond / 1000));
  }
};

}  // namespace swiglu::server
