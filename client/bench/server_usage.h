// SPDX-License-Identifier: Apache-2.0
//
// What a server has used of its machine: from /proc where it runs here, or from its Prometheus
// page.
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
  // The most that was resident at once. 0: not known.
  int64_t resident_high_water_bytes = 0;
};

// Of a process of this machine. NOT_FOUND if there is none.
absl::StatusOr<ServerUsage> ReadProcessUsage(pid_t pid);

// From the page `/metrics` at `address` (HOST:PORT), by the first address of the host that takes a
// connection. Blocks for 5 s at most, and for what the resolver takes. UNAVAILABLE or
// INVALID_ARGUMENT if it cannot be had, or lacks a number.
absl::StatusOr<ServerUsage> ReadPageUsage(const std::string& address);

// The numbers in the text of such a page.
absl::StatusOr<ServerUsage> ParsePageUsage(absl::string_view page);

}  // namespace swiglu::bench
