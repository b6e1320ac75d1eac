// SPDX-License-Identifier: Apache-2.0
//
// Asks a running server for its health, as a client. For container health checks.
#pragma once

#include <string>

#include "absl/status/status.h"

namespace swiglu::server {

// Asks grpc.health.v1 at `address` for the state of `service`, and waits at most two seconds.
// Returns OK if the state is SERVING, else UNAVAILABLE with a message that says what was found.
absl::Status ProbeHealth(const std::string& address, const std::string& service);

}  // namespace swiglu::server
