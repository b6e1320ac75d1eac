// SPDX-License-Identifier: Apache-2.0
//
// Looks at a listening address before gRPC does, because gRPC does not say why it cannot have one.
#pragma once

#include <string>

#include "absl/status/status.h"

namespace swiglu::server {

// OK if `address` (`HOST:PORT` or `unix:/path`) can be listened on now. Removes the socket file of
// a server that is gone; one that answers is an error. On error: INVALID_ARGUMENT (not an address)
// or FAILED_PRECONDITION (cannot be had), with the address and the reason.
absl::Status PrepareListenAddress(const std::string& address);

// The path in `unix:/path`, or "".
std::string UnixSocketPath(const std::string& address);

}  // namespace swiglu::server
