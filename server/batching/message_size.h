// SPDX-License-Identifier: Apache-2.0
//
// Estimates the size of the next message if its caller announces none, on a connection on which the
// server cannot see how many bytes have come. The estimate is the size of the largest recent
// message. So there, too, the server can reserve nearly the right size before it reads a message.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>

#include "server/core/clock.h"

namespace swiglu::server {

// Thread-safe, lock-free. Losing an update to a race costs precision only.
class MessageSizeEstimate {
 public:
  // The estimate before the first message, and the least estimate.
  static constexpr int64_t kLeastBytes = int64_t{64} << 10;

  // It halves every second.
  int64_t bytes(Clock::time_point now) const {
    return std::max(bytes_.load(std::memory_order_relaxed) >> Halvings(now), kLeastBytes);
  }

  // Call this when a message of that size has come. A larger one counts at once; a smaller one
  // lowers the estimate by a share of the difference. Small messages therefore lower it by half in
  // about 44 messages. Time lowers it, too (see `bytes`).
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

  // How often it has halved since `at_`.
  int64_t Halvings(Clock::time_point now) const {
    const Clock::duration at(at_.load(std::memory_order_relaxed));
    return std::clamp<int64_t>((now.time_since_epoch() - at) / kHalving, 0, 62);
  }

  std::atomic<int64_t> bytes_{kLeastBytes};
  std::atomic<Clock::rep> at_{0};  // of `bytes_`, since the clock's epoch
};

}  // namespace swiglu::server
