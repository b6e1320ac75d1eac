// SPDX-License-Identifier: Apache-2.0
//
// In an open loop, one thread holds the lock and waits for the next arrival. All other threads wait
// for the lock.
#include "client/bench/pace.h"

namespace swiglu::bench {
namespace {

using std::chrono::duration_cast;
using std::chrono::nanoseconds;

// A sleep may end this much too late, so the last part of a wait polls the clock.
constexpr auto kSleepSlack = std::chrono::microseconds(60);

// An arrival before the end is still sent if a thread notices it at most this long after the end.
constexpr auto kEndGrace = std::chrono::milliseconds(10);

// Any fixed number, so that all runs have the same arrivals.
constexpr uint32_t kSeed = 20'240'601;

}  // namespace

ArrivalSchedule::ArrivalSchedule(double rate, Arrivals arrivals, uint32_t seed)
    : rate_(rate), arrivals_(arrivals), random_(seed), gaps_(rate) {}

nanoseconds ArrivalSchedule::Next() {
  ++num_given_;
  // Computes a constant pace from the start, so that rounding errors do not add up.
  seconds_ = arrivals_ == Arrivals::kConstant ? static_cast<double>(num_given_) / rate_
                                              : seconds_ + gaps_(random_);
  return duration_cast<nanoseconds>(std::chrono::duration<double>(seconds_));
}

Pace::Pace(const PaceOptions& options, Clock::time_point start)
    : options_(options),
      start_(start),
      begin_(start + options.warm_up),
      end_(options.num_requests > 0 ? Clock::time_point::max() : begin_ + options.duration),
      schedule_(options.rate > 0 ? options.rate : 1, options.arrivals, kSeed),
      due_(start + schedule_.Next()) {}

absl::optional<Turn> Pace::Next() { return is_closed_loop() ? NextClosed() : NextOpen(); }

void Pace::WaitUntil(Clock::time_point time) {
  const Clock::duration rest = time - kSleepSlack - Clock::now();
  if (rest > Clock::duration::zero()) {
    stopped_.WaitForNotificationWithTimeout(absl::FromChrono(rest));
  }
  while (!was_stopped() && Clock::now() < time) {
  }
}

void Pace::Stop() {
  const Clock::time_point now = Clock::now();
  if (now >= end()) return;
  std::call_once(stop_once_, [this, now] {
    end_.store(now);
    stopped_.Notify();
  });
}

absl::optional<Turn> Pace::NextClosed() {
  const Clock::time_point now = Clock::now();
  if (now >= end()) return absl::nullopt;
  if (now < begin_) return Turn{now, false};
  if (!TakeTicket()) return absl::nullopt;
  return Turn{now, true};
}

absl::optional<Turn> Pace::NextOpen() {
  absl::MutexLock lock(&mutex_);
  if (due_ >= end()) return absl::nullopt;
  WaitUntil(due_);
  // Stop may have moved the end during the wait.
  const Clock::time_point end = this->end();
  if (due_ >= end) return absl::nullopt;
  if (end != Clock::time_point::max() && Clock::now() > end + kEndGrace) return absl::nullopt;
  const Turn turn{due_, due_ >= begin_};
  if (turn.is_measured && !TakeTicket()) return absl::nullopt;
  due_ = start_ + schedule_.Next();
  return turn;
}

bool Pace::TakeTicket() {
  if (options_.num_requests == 0) return true;
  return num_measured_.fetch_add(1, std::memory_order_relaxed) < options_.num_requests;
}

bool Pace::Counts(const Turn& turn, Clock::time_point done) const {
  if (is_closed_loop() && options_.num_requests == 0) return done >= begin_ && done < end();
  return turn.is_measured;
}

int64_t Pace::NumNotSent() {
  absl::MutexLock lock(&mutex_);
  if (is_closed_loop() || options_.num_requests > 0) return 0;
  int64_t num_not_sent = 0;
  while (due_ < end()) {
    if (due_ >= begin_) ++num_not_sent;
    due_ = start_ + schedule_.Next();
  }
  return num_not_sent;
}

}  // namespace swiglu::bench
