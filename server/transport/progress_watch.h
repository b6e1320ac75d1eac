// SPDX-License-Identifier: Apache-2.0
//
// Whether something keeps a thread from polling: the thread uses the processor but ends no event.
// Pure: clocks are passed in.
#pragma once

#include <chrono>
#include <cstdint>

namespace swiglu::server {

// What is known of one thread. Not thread-safe.
class ProgressWatch {
 public:
  using Time = std::chrono::steady_clock::time_point;

  // A thread that uses this much processor time without an event counts as kept from polling. An
  // idle thread uses nearly none, and a message of some megabytes takes less than this.
  static constexpr std::chrono::milliseconds kKeptFor{10};
  // Processor time counts only for this long. So the little time that an idle thread uses now and
  // then never adds up.
  static constexpr std::chrono::milliseconds kForgetAfter{250};

  // Returns whether the thread is kept from polling. `num_events` and `cpu` are the events and the
  // processor time of the thread since its start. The first look after an event only begins the
  // count.
  bool IsKept(uint32_t num_events, std::chrono::nanoseconds cpu, Time now) {
    const bool is_new = num_events != num_events_;
    const bool is_kept = !is_new && cpu - cpu_ >= kKeptFor;
    if (is_new || (!is_kept && now - since_ >= kForgetAfter)) {
      num_events_ = num_events;
      cpu_ = cpu;
      since_ = now;
    }
    return is_kept;
  }

 private:
  uint32_t num_events_ = 0;
  std::chrono::nanoseconds cpu_{0};
  Time since_{};
};

}  // namespace swiglu::server
