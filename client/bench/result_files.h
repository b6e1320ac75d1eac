// SPDX-License-Identifier: Apache-2.0
//
// The files that a load writes beside what it prints.
#pragma once

#include <vector>

#include "absl/status/status.h"
#include "client/bench/command_line.h"
#include "client/bench/report.h"

namespace swiglu::bench {

// OK if the files that `command` names may be written, as far as this can be known before the load.
// They replace files that exist.
absl::Status CheckResultFiles(const CommandLine& command);

// Writes them. REQUIRES: there is a report.
absl::Status WriteResultFiles(const CommandLine& command, const std::vector<Report>& reports);

}  // namespace swiglu::bench
