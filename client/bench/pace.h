// SPDX-License-Identifier: Apache-2.0
//
// When requests start and which of them count. This is the clock of a load; it does not know how
// requests are sent.
#pragma once

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

// The times at which requests of an open loop start, counted from the start of the load. Equal
// seeds give equal times. Not thread-safe.
class ArrivalSchedule {
 public:
  // REQUIRES: `rate`, in requests per second, is above 0.
  ArrivalSchedule(double rate, Arrivals arrivals, uint32_t seed);

  // The time of the next request. The times never decrease.
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
  // Requests during this time, from the start of the load, do not count. 0 or more.
  Clock::duration warm_up = std::chrono::seconds(1);
  // Then requests count for this time. Not used where num_requests is above 0.
  Clock::duration duration = std::chrono::seconds(5);
  // The load ends after this many requests that count. 0: it ends by time.
  int64_t num_requests = 0;
  // Requests per second of an open loop. 0: a closed loop, in which a request starts when another
  // has ended.
  double rate = 0;
  Arrivals arrivals = Arrivals::kPoisson;
};

// The turn of one request.
struct Turn {
  // When it should start. In an open loop latency counts from here, however late it starts.
  Clock::time_point intended;
  // Whether it comes after the warm-up and within the number of requests that was asked for.
  bool is_measured = false;
};

// Gives out turns to any number of threads. Thread-safe.
class Pace {
 public:
  // The load begins at `start`.
  Pace(const PaceOptions& options, Clock::time_point start);

  // The next turn. In an open loop this blocks until the time of that turn. Returns none when the
  // load is over.
  absl::optional<Turn> Next();

  // Blocks until `time`, or until the load is stopped.
  void WaitUntil(Clock::time_point time);

  // Ends the load now, if it has not ended. All threads that wait for a turn or a time return. The
  // window then ends now.
  void Stop();
  // Whether the load was stopped before its end.
  bool was_stopped() const { return stopped_.HasBeenNotified(); }

  // Whether a request of that turn that ended at `done` counts. In a closed loop with a duration,
  // requests that end in the window count. In all other loads, those with `Turn::is_measured`
  // count.
  bool Counts(const Turn& turn, Clock::time_point done) const;

  // The number of requests of an open loop whose time came before the end but which no thread sent.
  // Also ends the load: call it once, at the end.
  int64_t NumNotSent();

  bool is_closed_loop() const { return options_.rate == 0; }
  // Whether a number of requests ends the load, and not a time.
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

  absl::Mutex mu_;
  ArrivalSchedule schedule_ ABSL_GUARDED_BY(mu_);
  Clock::time_point due_ ABSL_GUARDED_BY(mu_);  // the next arrival of an open loop
};

}  // namespace swiglu::bench
