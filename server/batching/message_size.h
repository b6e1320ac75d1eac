// SPDX-License-Identifier: Apache-2.0
//
// Estimates the size of the next unannounced message, for connections on which the server cannot
// count the bytes that have arrived. The estimate is the size of the largest recent message. The
// server reserves this size before it reads the message.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>

#include "server/core/clock.h"

namespace swiglu::server {

// Thread-safe, lock-free. If a race loses an update, the estimate is only less precise.
class MessageSizeEstimate {
 public:
  // The first estimate, and the smallest one.
  static constexpr int64_t kLeastBytes = int64_t{64} << 10;

  // The estimate at `now`. Without messages, it halves every second.
  int64_t bytes(Clock::time_point now) const {
    return std::max(bytes_.load(std::memory_order_relaxed) >> Halvings(now), kLeastBytes);
  }

  // Call this when a message has arrived. A message above the estimate becomes the estimate. A
  // smaller message lowers it by 1/64 of the difference, so about 44 small messages halve it.
  void Add(int64_t message_bytes, Clock::time_point now) {
    const int64_t before = bytes(now);
    const int64_t lowered = before - (before - message_bytes + kMemory - 1) / kMemory;
    const Clock::rep halved_at =
        at_.load(std::memory_order_relaxed) + Clock::duration(Halvings(now) * kHalving).count();
    at_.store(message_bytes >= before ? now.time_since_epoch().count() : halved_at,
              std::memory_order_relaxed);
    bytes_.store(std::max({message_bytes, lowered, kLeastBytes}), std::memory_order_relaxed);
  }

 private:
  static constexpr int64_t kMemory = 64;
  static constexpr std::chrono::seconds kHalving{1};

  // How often the estimate has halved since `at_`.
  int64_t Halvings(Clock::time_point now) const {
    const Clock::duration at(at_.load(std::memory_order_relaxed));
    return std::clamp<int64_t>((now.time_since_epoch() - at) / kHalving, 0, 62);
  }

  std::atomic<int64_t> bytes_{kLeastBytes};
  std::atomic<Clock::rep> at_{0};  // when `bytes_` was valid, since the clock's epoch
};

}  // namespace swiglu::server
