// SPDX-License-Identifier: Apache-2.0
//
// The program as a client: asks a running server for its health. For container health checks.
#pragma once

#include <string>

#include "absl/status/status.h"

namespace swiglu::server {

// Asks grpc.health.v1 at `address` about `service`, for two seconds at most. OK when it is SERVING;
// else UNAVAILABLE with what was found.
absl::Status ProbeHealth(const std::string& address, const std::string& service);

}  // namespace swiglu::server
