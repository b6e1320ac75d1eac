// SPDX-License-Identifier: Apache-2.0
//
// Puts the load on the server, and prints what came of it.
#pragma once

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/optional.h"
#include "client/bench/command_line.h"
#include "client/bench/pace.h"
#include "client/cli/exit_code.h"

namespace swiglu::bench {

// What SIGINT and SIGTERM do to a load: the first one stops it, so that what was measured is
// printed. One that comes later than a second after that, or while no load runs, ends the process,
// and so do other signals: one order often arrives twice, at the process and at its group.
// Thread-safe.
class StopOrder {
 public:
  // Obeys `signal`.
  void Take(int signal);

  // The load that is to be stopped, from now on; nullptr: none. It must not go while it is set.
  void SetLoad(Pace* pace);

 private:
  absl::Mutex mu_;
  Pace* pace_ ABSL_GUARDED_BY(mu_) = nullptr;
  absl::optional<Clock::time_point> first_ ABSL_GUARDED_BY(mu_);
};

// Blocks until the load is over, or stopped by `stop`. kRefused only if every request failed.
// REQUIRES: the action is kLoad.
cli::Outcome RunLoad(const CommandLine& command, StopOrder& stop);

}  // namespace swiglu::bench
