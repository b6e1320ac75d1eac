// SPDX-License-Identifier: Apache-2.0
//
// Counts the inferences that are being answered, from the message to the last byte handed to gRPC,
// so that a drain can wait for them.
#pragma once

#include <atomic>
#include <cstdint>
#include <utility>

#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace swiglu::server {

// Thread-safe. Must outlive its tokens.
class ActiveRequests {
 public:
  // One request's presence; move-only.
  class Token {
   public:
    Token() = default;
    explicit Token(ActiveRequests* active) : active_(active) { active_->Add(1); }
    Token(Token&& other) noexcept : active_(std::exchange(other.active_, nullptr)) {}
    Token& operator=(Token&& other) noexcept {
      std::swap(active_, other.active_);
      return *this;
    }
    ~Token() {
      if (active_ != nullptr) active_->Add(-1);
    }

   private:
    ActiveRequests* active_ = nullptr;
  };

  // Blocks until there is none, at most for `timeout`; returns how many are left.
  int64_t WaitUntilNone(absl::Duration timeout) {
    const auto none = [this] { return count_.load(std::memory_order_acquire) == 0; };
    absl::MutexLock lock(&mutex_);
    mutex_.AwaitWithTimeout(absl::Condition(&none), timeout);
    return count_.load(std::memory_order_acquire);
  }

 private:
  void Add(int64_t amount) {
    if (count_.fetch_add(amount, std::memory_order_acq_rel) + amount > 0) return;
    absl::MutexLock lock(&mutex_);  // wakes who waits
  }

  absl::Mutex mutex_;
  std::atomic<int64_t> count_{0};
};

}  // namespace swiglu::server
