// SPDX-License-Identifier: Apache-2.0
//
// How much processor time and memory a server has used. The figures come from /proc if the server
// runs on this machine, otherwise from the server's Prometheus page.
#pragma once

#include <netdb.h>
#include <sys/types.h>

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "server/base/descriptor.h"

namespace swiglu::bench {

struct ServerUsage {
  double cpu_seconds = 0;  // since the server started
  int64_t resident_bytes = 0;
  // The highest resident size so far. 0 if it is not known.
  int64_t resident_high_water_bytes = 0;
};

// The usage of a process on this machine. NOT_FOUND if there is no such process.
absl::StatusOr<ServerUsage> ReadProcessUsage(pid_t pid);

// The usage that the page `/metrics` at `address` (HOST:PORT) shows. Reads it from the host's first
// address that accepts a connection. Blocks for 5 s at most, plus the time that the resolver takes.
// UNAVAILABLE if the page cannot be read, INVALID_ARGUMENT if it lacks a number.
absl::StatusOr<ServerUsage> ReadPageUsage(const std::string& address);

// The usage that the text of such a page shows.
absl::StatusOr<ServerUsage> ParsePageUsage(absl::string_view page);

// Connects to the addresses of a host in turn, and returns the first connection that succeeds. Each
// attempt gets the time that is left, divided by the number of addresses that are left.
// UNAVAILABLE, with the reason of the last attempt, if all fail.
absl::StatusOr<server::Descriptor> ConnectToAny(const addrinfo* addresses, absl::Time deadline);

// What the server at `address` (HOST:PORT) answers to a GET of `path`, headers included. Blocks for
// `timeout` at most, plus the time that the resolver takes. UNAVAILABLE, naming the address, if the
// answer is not complete by then or has more than 64 MiB.
absl::StatusOr<std::string> ReadHttpPage(const std::string& address, absl::string_view path,
                                         absl::Duration timeout);

}  // namespace swiglu::bench
