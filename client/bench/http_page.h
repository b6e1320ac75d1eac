// SPDX-License-Identifier: Apache-2.0
//
// Reads a page by HTTP.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace swiglu::bench {

// The page `path` of the server at `address` (HOST:PORT), without headers. If the host has several
// addresses, reads from the first one that accepts a connection. Ignores proxies, and does not
// follow redirections. Blocks for `timeout` at most. UNAVAILABLE, with the address and the reason,
// if the answer is not complete by then, has a status other than 200, or has more than 64 MiB.
// Thread-safe.
absl::StatusOr<std::string> ReadHttpPage(const std::string& address, absl::string_view path,
                                         absl::Duration timeout);

}  // namespace swiglu::bench
