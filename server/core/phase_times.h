// SPDX-License-Identifier: Apache-2.0
//
// How long each phase of a request or of a batch took.
#pragma once

#include <chrono>

namespace swiglu::server {

// The time of each phase. 0 for a phase that was not reached. A batch has only the last three
// phases. For a request, each of these three is the sum over its batches. If a kernel copies while
// it computes, all of its time counts as `compute`.
struct PhaseTimes {
  std::chrono::nanoseconds receive{0};  // from the start of the request until it is queued
  std::chrono::nanoseconds queue{0};    // from then until a batch takes it, or it is dropped
  std::chrono::nanoseconds copy_in{0};
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
