// SPDX-License-Identifier: Apache-2.0
//
// What a server has used of its machine. It comes from /proc if the server runs on this machine,
// else from the server's Prometheus page.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace swiglu::bench {

struct ServerUsage {
  double cpu_seconds = 0;  // since it started
  int64_t resident_bytes = 0;
  // The highest resident size so far. 0: not known.
  int64_t resident_high_water_bytes = 0;
};

// The usage of a process of this machine. NOT_FOUND if there is none.
absl::StatusOr<ServerUsage> ReadProcessUsage(pid_t pid);

// The usage that the page `/metrics` at `address` (HOST:PORT) shows, read from the first address of
// the host that takes a connection. Blocks for 5 s at most, plus the time that the resolver takes.
// UNAVAILABLE or INVALID_ARGUMENT if the page cannot be read, or lacks a number.
absl::StatusOr<ServerUsage> ReadPageUsage(const std::string& address);

// The numbers in the text of such a page.
absl::StatusOr<ServerUsage> ParsePageUsage(absl::string_view page);

}  // namespace swiglu::bench
