// SPDX-License-Identifier: Apache-2.0
//
// Puts the load on the server, and prints the results.
#pragma once

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/optional.h"
#include "client/bench/command_line.h"
#include "client/bench/pace.h"
#include "client/cli/exit_code.h"

namespace swiglu::bench {

// What SIGINT and SIGTERM do to a load. The first one stops the load, and what was measured is
// printed. Another one within a second changes nothing, because one order often arrives twice, at
// the process and at its process group. A later one ends the process. A signal while no load runs,
// or any other signal, ends the process, too. Thread-safe.
class StopOrder {
 public:
  // Does what `signal` orders.
  void Take(int signal);

  // From now on a signal stops this load; nullptr: no load. The object must live as long as it is
  // set.
  void SetLoad(Pace* pace);

 private:
  absl::Mutex mu_;
  Pace* pace_ ABSL_GUARDED_BY(mu_) = nullptr;
  absl::optional<Clock::time_point> first_ ABSL_GUARDED_BY(mu_);
};

// Blocks until the load is over, or stopped by `stop`. kRefused only if every request failed.
// REQUIRES: the action is kLoad.
cli::ProgramEnd RunLoad(const CommandLine& command, StopOrder& stop);

}  // namespace swiglu::bench
