// SPDX-License-Identifier: Apache-2.0
//
// How many I/O threads poll at once. A pure function.
//
// Idle pollers have a cost, because each event wakes another idle poller. One poller answers a
// single request soonest, and many small requests need several pollers. So the number depends on
// the work. Long work does not count here, because a thread that does long work does not poll.
#pragma once

#include <algorithm>

namespace swiglu::server {

// What the I/O threads did since the last look.
struct PollerLoad {
  int num_pollers = 1;
  // Processor time of all threads divided by elapsed time, with long work and without busy waits.
  double busy_threads = 0;
  // Time of all threads in long work divided by elapsed time.
  double long_threads = 0;
};

// Returns the number of pollers from here on, 1 to `max_pollers`. Adds one poller if the pollers
// are hardly ever idle. Takes one away if the remaining pollers could do the work and would still
// be idle often enough.
inline int ChoosePollerCount(const PollerLoad& load, int max_pollers) {
  constexpr double kCrowded = 0.8;
  constexpr double kRoomy = 0.6;
  const int now = std::clamp(load.num_pollers, 1, max_pollers);
  // Long work is measured as elapsed time, so it may exceed the processor time of all threads.
  const double busy = std::max(0.0, load.busy_threads - load.long_threads);
  if (busy > kCrowded * now) return std::min(now + 1, max_pollers);
  if (busy < kRoomy * (now - 1)) return now - 1;
  return now;
}

}  // namespace swiglu::server
