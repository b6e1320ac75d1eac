// SPDX-License-Identifier: Apache-2.0
//
// Whether and when a failed call is tried again. Every request of the library may be: an inference
// is pure, so a second run changes nothing.
#pragma once

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"

namespace swiglu::client {

// Limits the retries of a client to a share of its calls, so that clients do not multiply the load
// of a server that fails. Thread-safe.
class RetryBudget {
 public:
  // A budget that no call has earned yet: a few calls may fail one after the other.
  static constexpr double kMostRetries = 10;

  // Each call earns `retries_per_call`. If that is 0, there are no retries at all.
  explicit RetryBudget(double retries_per_call)
      : retries_per_call_(retries_per_call), num_left_(retries_per_call > 0 ? kMostRetries : 0) {}

  // Notes a call, in however many messages it is sent, and however often.
  void EarnByCall();

  // Whether a retry is left. If so, it is used up.
  bool SpendOnRetry();

  // Whether there are retries at all.
  bool has_retries() const { return retries_per_call_ > 0; }

 private:
  const double retries_per_call_;
  absl::Mutex mutex_;
  double num_left_ ABSL_GUARDED_BY(mutex_);
};

// How an attempt has failed.
struct FailedAttempt {
  absl::Status status;
  // The server's advice how long to wait. Negative: the call must not be tried again.
  absl::optional<absl::Duration> pushback;
  int number;  // 1 for the first
  // Whether there was no connection, so that waiting for one is what helps.
  bool is_lost = false;
};

// Returns how long to wait before the next attempt, or nullopt if another attempt would not help.
// After UNAVAILABLE or RESOURCE_EXHAUSTED with a pushback, the call waits for as long as the server
// says, and up to half as long again. Else only UNAVAILABLE is tried again, after a random part of
// a time that doubles from 50 ms to 1 s: clients that lost their server at one moment do not all
// come back at one moment. A call that has no connection waits for all of that time, and up to as
// long again: a channel that could not connect tries again after 250 ms. `random` is at least 0
// and below 1.
absl::optional<absl::Duration> WaitBeforeRetry(const FailedAttempt& failed, double random);

// A random number for WaitBeforeRetry. Thread-safe.
double RandomShare();

}  // namespace swiglu::client
