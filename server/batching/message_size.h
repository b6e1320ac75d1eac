// SPDX-License-Identifier: Apache-2.0
//
// How large the next message of a caller that announces no size will be: as large as the largest of
// late. So that such a caller's read, too, starts under a reservation that is nearly right.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

namespace swiglu::server {

// Thread-safe, lock-free. Losing an update to a race costs precision only.
class MessageSizeEstimate {
 public:
  // What to expect before anything was seen, and at least.
  static constexpr int64_t kLeastBytes = int64_t{64} << 10;

  int64_t bytes() const { return bytes_.load(std::memory_order_relaxed); }

  // A message of that size has come. A larger one counts at once; a smaller one lowers the estimate
  // by a share of the difference, so that it halves in some 44 messages.
  void Add(int64_t message_bytes) {
    const int64_t before = bytes();
    const int64_t lowered = before - (before - message_bytes + kMemory - 1) / kMemory;
    bytes_.store(std::max({message_bytes, lowered, kLeastBytes}), std::memory_order_relaxed);
  }

 private:
  static constexpr int64_t kMemory = 64;

  std::atomic<int64_t> bytes_{kLeastBytes};
};

}  // namespace swiglu::server
