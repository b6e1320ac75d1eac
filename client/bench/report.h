// SPDX-License-Identifier: Apache-2.0
//
// Formats the results of a load.
#pragma once

#include <cstdint>
#include <string>

#include "absl/types/optional.h"
#include "client/bench/command_line.h"
#include "client/bench/load.h"
#include "client/bench/server_usage.h"

namespace swiglu::bench {

// The results of a load.
struct Report {
  CommandLine command;
  Tally tally;
  Clock::duration elapsed;   // the time over which the requests of `tally` are counted
  int64_t num_not_sent = 0;  // requests of an open loop, due but not sent
  bool was_stopped = false;  // whether a signal stopped the load early
  double client_cpu_seconds = 0;
  // The server's processor time during the window, and its memory at the end of the window.
  absl::optional<ServerUsage> server;
  // The number of results that were compared and found right. None without --check.
  absl::optional<int64_t> num_checked = absl::nullopt;
  // The number of results that were compared with the formulas and found right. None or 0 if none
  // could be.
  absl::optional<int64_t> num_computed = absl::nullopt;
};

// What a load asks for, and how, on one line without a line break.
std::string FormatLoad(const CommandLine& command);

// A few lines of text for people. A figure that does not exist is shown as a dash, for example the
// latency if no request succeeded.
std::string FormatText(const Report& report);

// One JSON object without a line break. It includes the configuration. A figure that does not exist
// is null.
std::string FormatJson(const Report& report);

}  // namespace swiglu::bench
