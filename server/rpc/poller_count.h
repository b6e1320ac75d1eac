// SPDX-License-Identifier: Apache-2.0
//
// How many I/O threads poll at once. A pure function.
//
// A thread that finds nothing to do is not free: every event then wakes another one than the last,
// and hands its completion from thread to thread. One poller answers a lone request soonest; many
// small requests, and large payloads, want several. So the number follows the work.
#pragma once

#include <algorithm>

namespace swiglu::server {

// The pollers' share of the time since the last look that they spent working.
struct PollerLoad {
  int num_pollers = 1;
  // Threads' worth of processor time that all of them took; 0 to num_pollers.
  double busy_threads = 0;
};

// The number of pollers from here on, 1 to `max_pollers`: one more while those that there are
// have hardly a pause, one fewer when the others could do the work with pauses enough.
inline int ChoosePollerCount(const PollerLoad& load, int max_pollers) {
  constexpr double kCrowded = 0.8;
  constexpr double kRoomy = 0.6;
  const int now = std::clamp(load.num_pollers, 1, max_pollers);
  if (load.busy_threads > kCrowded * now) return std::min(now + 1, max_pollers);
  if (load.busy_threads < kRoomy * (now - 1)) return now - 1;
  return now;
}

}  // namespace swiglu::server
