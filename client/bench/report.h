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
  Clock::duration elapsed;   // over which what the tally counted is spread
  int64_t num_not_sent = 0;  // of an open loop
  bool was_stopped = false;  // before its end, by a signal
  double client_cpu_seconds = 0;
  // Of the server: the seconds of the window, the memory at its end.
  absl::optional<ServerUsage> server;
};

// A few lines for people. What cannot be told, as the latency of no request, is a dash.
std::string FormatText(const Report& report);

// One JSON object, configuration included, without a line break. What cannot be told is null.
std::string FormatJson(const Report& report);

}  // namespace swiglu::bench
