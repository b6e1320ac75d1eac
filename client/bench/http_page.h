// SPDX-License-Identifier: Apache-2.0
//
// As much of HTTP as one page needs.
#pragma once

#include <netdb.h>

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "server/base/descriptor.h"

namespace swiglu::bench {

// Connects to the addresses of a host in turn, and returns the first connection that succeeds. Each
// attempt gets its share of the time that is left. UNAVAILABLE, with the reason of the last
// attempt, if all fail.
absl::StatusOr<server::Descriptor> ConnectToAny(const addrinfo* addresses, absl::Time deadline);

// What the server at `address` (HOST:PORT) answers to a GET of `path`, headers included. Blocks for
// `timeout` at most, plus the time that the resolver takes. UNAVAILABLE, naming the address, if the
// answer is not complete by then or has more than 64 MiB.
absl::StatusOr<std::string> ReadHttpPage(const std::string& address, absl::string_view path,
                                         absl::Duration timeout);

}  // namespace swiglu::bench
