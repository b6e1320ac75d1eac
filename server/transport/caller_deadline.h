// SPDX-License-Identifier: Apache-2.0
//
// Converts a caller's deadline to the server's `Clock`. A pure function.
#pragma once

#include <chrono>
#include <cstdint>

#include "grpc/support/time.h"
#include "server/core/clock.h"

namespace swiglu::server {

// The deadline of a caller who has the time `left` (a gRPC timespan) at `now`. Such a timespan may
// be too long to count in nanoseconds, so more than a year counts as no deadline.
inline Clock::time_point CallerDeadline(gpr_timespec left, Clock::time_point now) {
  constexpr int64_t kYearSeconds = int64_t{365} * 24 * 3600;
  if (left.tv_sec > kYearSeconds) return Clock::time_point::max();
  if (left.tv_sec < 0) return now;
  return now + std::chrono::seconds(left.tv_sec) + std::chrono::nanoseconds(left.tv_nsec);
}

}  // namespace swiglu::server
