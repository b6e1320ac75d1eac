// SPDX-License-Identifier: Apache-2.0
//
// The result of a call that has not ended yet.
#pragma once

#include <atomic>
#include <memory>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "swiglu/cancellation.h"

namespace swiglu::client {

// What a future shares with its call. Thread-safe.
class FutureState {
 public:
  // Whether the call has ended.
  bool IsReady() const { return is_ready_.load(std::memory_order_acquire); }
  // Blocks until the call has ended.
  void Wait();
  // Whether the call has ended within `timeout`.
  bool WaitFor(absl::Duration timeout);

  // Whether this process was forked from the one of the call, which never ends here.
  bool IsOfParent() const;

  // Called once, when the result is there.
  void SetReady();

  // Ends the call before its time.
  Cancellation* cancellation() { return &cancellation_; }

  // A number that differs between a process and its children.
  static int CurrentProcess();

 private:
  const int process_ = CurrentProcess();
  std::atomic<bool> is_ready_{false};
  Cancellation cancellation_;
  absl::Mutex mutex_;
  absl::CondVar ready_;
};

// Move-only. The tensors of the call are used until its future is ready, so they must live until
// then. Methods other than Cancel are for one thread at a time.
template <typename T>
class [[nodiscard]] Future {
 public:
  // The result's place.
  struct State : FutureState {
    absl::optional<T> value;
  };

  // A future without a call. Only assignment and destruction are allowed.
  Future() = default;
  explicit Future(std::shared_ptr<State> state) : state_(std::move(state)) {}
  Future(Future&&) noexcept = default;
  Future& operator=(Future&& other) noexcept {
    Future taken(std::move(other));
    std::swap(state_, taken.state_);
    return *this;
  }
  // Cancels a call that has not ended, and blocks until nothing uses its tensors any more. So do
  // not destroy such a future in a callback of the library.
  ~Future() {
    if (!state_ || state_->IsReady() || state_->IsOfParent()) return;
    state_->cancellation()->Cancel();
    state_->Wait();
  }

  // Whether the call has ended.
  bool IsReady() const { return state_->IsReady(); }
  // Blocks until the call has ended. It ends soon after its deadline at the latest; Client
  // says when it is later.
  void Wait() const { state_->Wait(); }
  // The same, but blocks for `timeout` at most. Whether the call has ended.
  bool WaitFor(absl::Duration timeout) const { return state_->WaitFor(timeout); }

  // Waits, and returns the result. Call it once.
  T Get() {
    state_->Wait();
    return *std::move(state_->value);
  }

  // Asks the call to end. It ends soon with CANCELLED, unless it has been sent together with others
  // or has just ended. Thread-safe.
  void Cancel() { state_->cancellation()->Cancel(); }

 private:
  std::shared_ptr<State> state_;
};

}  // namespace swiglu::client
