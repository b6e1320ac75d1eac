// SPDX-License-Identifier: Apache-2.0
//
// How much processor time and memory a server has used. The figures come from /proc if the server
// runs on this machine, otherwise from the server's Prometheus page.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace swiglu::bench {

struct ServerUsage {
  double cpu_seconds = 0;  // since the server started
  int64_t resident_bytes = 0;
  // The highest resident size so far. 0 if it is not known.
  int64_t resident_high_water_bytes = 0;
};

// The usage of a process on this machine. NOT_FOUND if there is no such process.
absl::StatusOr<ServerUsage> ReadProcessUsage(pid_t pid);

// The usage that the page `/metrics` at `address` (HOST:PORT) shows. Blocks for 5 s at most.
// UNAVAILABLE if the page cannot be read, INVALID_ARGUMENT if it lacks a number.
absl::StatusOr<ServerUsage> ReadPageUsage(const std::string& address);

// The usage that the text of such a page shows.
absl::StatusOr<ServerUsage> ParsePageUsage(absl::string_view page);

}  // namespace swiglu::bench
