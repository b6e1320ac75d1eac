// SPDX-License-Identifier: Apache-2.0
//
// Runs a load on the server, or a sweep of loads, and prints the results.
#pragma once

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/optional.h"
#include "client/bench/command_line.h"
#include "client/bench/pace.h"
#include "client/cli/exit_code.h"

namespace swiglu::bench {

// What signals do to a load. The first SIGINT or SIGTERM during a load stops it, and the results so
// far are printed. Another such signal within a second has no effect, because one order often
// arrives twice: at the process and at its process group. Every other signal ends the process.
// Thread-safe.
class StopOrder {
 public:
  // Handles `signal`.
  void Take(int signal);

  // From now on, SIGINT and SIGTERM stop this load. nullptr: no load runs. The pace must live as
  // long as it is set.
  void SetLoad(Pace* pace);

 private:
  absl::Mutex mutex_;
  Pace* pace_ ABSL_GUARDED_BY(mutex_) = nullptr;
  absl::optional<Clock::time_point> first_ ABSL_GUARDED_BY(mutex_);
};

// Blocks until the load, or each load of a sweep, is over, or `stop` has stopped it. Writes the
// files that the command line names. If all requests failed, the program ends as cli::CallFailed
// says; if only some failed, with kDone. REQUIRES: the action is kLoad.
cli::ProgramEnd RunLoad(const CommandLine& given, StopOrder& stop);

}  // namespace swiglu::bench
