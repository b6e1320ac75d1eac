// SPDX-License-Identifier: Apache-2.0
//
// The gRPC library's own messages, through our log.
#pragma once

namespace swiglu::server {

// From here on what gRPC has to complain about becomes a rate-limited warning of ours. Call once,
// before any other use of gRPC.
void RouteGrpcLog();

}  // namespace swiglu::server
