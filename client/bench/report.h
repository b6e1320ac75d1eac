// SPDX-License-Identifier: Apache-2.0
//
// What a load prints.
#pragma once

#include <cstdint>
#include <string>

#include "absl/types/optional.h"
#include "client/bench/command_line.h"
#include "client/bench/load.h"
#include "client/bench/server_usage.h"

namespace swiglu::bench {

// What was measured.
struct Report {
  CommandLine command;
  Tally tally;
  Clock::duration elapsed;   // the time in which the requests of the tally were counted
  int64_t num_not_sent = 0;  // of an open loop
  bool was_stopped = false;  // before its end, by a signal
  double client_cpu_seconds = 0;
  // What the server used: processor time during the window, and memory at the end of the window.
  absl::optional<ServerUsage> server;
};

// A few lines for people. A figure that does not exist is a dash, for example a latency if no
// request was made.
std::string FormatText(const Report& report);

// One JSON object, configuration included, without a line break. A figure that does not exist is
// null.
std::string FormatJson(const Report& report);

}  // namespace swiglu::bench
