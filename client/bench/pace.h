// SPDX-License-Identifier: Apache-2.0
//
// Decides when requests start and which of them count. It does not know how requests are sent.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <mutex>
#include <random>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/types/optional.h"

namespace swiglu::bench {

using Clock = std::chrono::steady_clock;

enum class Arrivals { kPoisson, kConstant };

// The times at which the requests of an open loop start, counted from the start of the load. Equal
// seeds give equal times. Not thread-safe.
class ArrivalSchedule {
 public:
  // REQUIRES: `rate`, in requests per second, is above 0.
  ArrivalSchedule(double rate, Arrivals arrivals, uint32_t seed);

  // The time of the next request, never before that of the previous one.
  std::chrono::nanoseconds Next();

 private:
  const double rate_;
  const Arrivals arrivals_;
  std::mt19937_64 random_;
  std::exponential_distribution<double> gaps_;
  int64_t num_given_ = 0;
  double seconds_ = 0;
};

struct PaceOptions {
  // Requests in this first part of the load do not count. 0 or more.
  Clock::duration warm_up = std::chrono::seconds(1);
  // How long requests count after the warm-up. Ignored if num_requests is above 0.
  Clock::duration duration = std::chrono::seconds(5);
  // The load ends after this many requests that count. 0: the load ends after `duration`.
  int64_t num_requests = 0;
  // Requests per second of an open loop. 0: a closed loop, in which each request starts when an
  // earlier one has ended.
  double rate = 0;
  Arrivals arrivals = Arrivals::kPoisson;
};

// The turn of one request.
struct Turn {
  // When the request should start. In an open loop, a late start counts as latency.
  Clock::time_point intended;
  // Whether the turn is after the warm-up. If not, its request does not count.
  bool is_measured = false;
};

// Gives out turns to any number of threads. Thread-safe.
class Pace {
 public:
  // The load begins at `start`.
  Pace(const PaceOptions& options, Clock::time_point start);

  // The next turn, or nullopt when the load is over. In an open loop, blocks until the time of that
  // turn.
  absl::optional<Turn> Next();

  // Blocks until `time`, or until the load is stopped.
  void WaitUntil(Clock::time_point time);

  // Ends the load and its window now, unless the load has ended already. All threads that wait for
  // a turn or for a time return.
  void Stop();
  // Whether Stop ended the load early.
  bool was_stopped() const { return stopped_.HasBeenNotified(); }

  // Whether the request that had `turn` and ended at `done` counts. In a closed loop that ends by
  // time, it counts if it ended in the window. In all other loads, it counts if `turn.is_measured`.
  bool Counts(const Turn& turn, Clock::time_point done) const;

  // How many requests of an open loop were due in the window but never sent. 0 if a number of
  // requests ends the load. Also ends the load: call this once, at the end.
  int64_t NumNotSent();

  const PaceOptions& options() const { return options_; }
  // How many requests that count have started, if a number of requests ends the load.
  int64_t num_measured() const {
    return std::min(num_measured_.load(std::memory_order_relaxed), options_.num_requests);
  }

  bool is_closed_loop() const { return options_.rate == 0; }
  // Whether the load ends after a number of requests and not at a time.
  bool ends_by_number() const { return options_.num_requests > 0; }

  // The window in which requests count. If a number of requests ends the load, the end is `max()`
  // until `Stop`. If the load is stopped in the warm-up, the window ends before it begins.
  Clock::time_point begin() const { return begin_; }
  Clock::time_point end() const { return end_.load(); }

 private:
  absl::optional<Turn> NextClosed();
  absl::optional<Turn> NextOpen();
  bool TakeTicket();

  const PaceOptions options_;
  const Clock::time_point start_;
  const Clock::time_point begin_;
  std::atomic<Clock::time_point> end_;
  std::atomic<int64_t> num_measured_{0};
  std::once_flag stop_once_;
  absl::Notification stopped_;

  absl::Mutex mutex_;
  ArrivalSchedule schedule_ ABSL_GUARDED_BY(mutex_);
  Clock::time_point due_ ABSL_GUARDED_BY(mutex_);  // the next arrival of an open loop
};

}  // namespace swiglu::bench
