// SPDX-License-Identifier: Apache-2.0
//
// Counts inferences, and calls that register or unregister regions or load weights, so that a drain
// can wait for them. An inference counts from the arrival of its message until its answer is
// written. It is in work until it has its answer. After that, it only waits for its caller to take
// the answer.
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
  // Counts one request while the token exists. Move-only.
  class Token {
   public:
    Token() = default;
    explicit Token(ActiveRequests* active) : active_(active), in_work_(true) {
      active_->in_work_.fetch_add(1, std::memory_order_relaxed);
      active_->Add(1);
    }
    Token(Token&& other) noexcept { Swap(other); }
    Token& operator=(Token&& other) noexcept {
      Swap(other);
      return *this;
    }
    ~Token() {
      if (active_ == nullptr) return;
      Answered();
      active_->Add(-1);
    }

    // Call this when the request has its answer, which its caller has not taken yet. REQUIRES: no
    // other thread uses the token.
    void Answered() {
      if (!std::exchange(in_work_, false)) return;
      active_->in_work_.fetch_sub(1, std::memory_order_relaxed);
    }

   private:
    void Swap(Token& other) noexcept {
      std::swap(active_, other.active_);
      std::swap(in_work_, other.in_work_);
    }

    ActiveRequests* active_ = nullptr;
    bool in_work_ = false;
  };

  // Blocks until no request is left, at most for `timeout`. Returns how many are left.
  int64_t WaitUntilNone(absl::Duration timeout) {
    const auto none = [this] { return count_.load(std::memory_order_acquire) == 0; };
    absl::MutexLock lock(&mutex_);
    mutex_.AwaitWithTimeout(absl::Condition(&none), timeout);
    return count_.load(std::memory_order_acquire);
  }

  // The number of requests that have no answer yet.
  int64_t num_in_work() const { return in_work_.load(std::memory_order_relaxed); }

 private:
  void Add(int64_t amount) {
    if (count_.fetch_add(amount, std::memory_order_acq_rel) + amount > 0) return;
    absl::MutexLock lock(&mutex_);  // wakes the thread that waits
  }

  absl::Mutex mutex_;
  std::atomic<int64_t> count_{0};
  std::atomic<int64_t> in_work_{0};
};

}  // namespace swiglu::server
