// SPDX-License-Identifier: Apache-2.0
//
// Where the time of a request or of a batch went.
#pragma once

#include <chrono>

namespace swiglu::server {

// The time of each phase; 0 for a phase that was not reached. A batch has the last three alone. A
// kernel that copies while it computes has all of its time under `compute`.
struct PhaseTimes {
  std::chrono::nanoseconds receive{0};  // from the start of the request until it is queued
  std::chrono::nanoseconds queue{0};    // from then until it is taken into a batch, or dropped
  std::chrono::nanoseconds copy_in{0};  // this and the next two: of the request's batch
  std::chrono::nanoseconds compute{0};
  std::chrono::nanoseconds copy_out{0};

  PhaseTimes& operator+=(const PhaseTimes& other) {
    receive += other.receive;
    queue += other.queue;
    copy_in += other.copy_in;
    compute += other.compute;
    copy_out += other.copy_out;
    return *this;
  }

  std::chrono::nanoseconds Total() const { return receive + queue + copy_in + compute + copy_out; }
};

}  // namespace swiglu::server
