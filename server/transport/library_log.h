// SPDX-License-Identifier: Apache-2.0
//
// Routes what gRPC and protobuf log to our log, or silences it.
#pragma once

namespace swiglu::server {

// From here on gRPC's complaints become rate-limited warnings in our log. Protobuf is silent: it
// complains about messages, and their senders are told. Call once, before any other use of either.
void RouteLibraryLogs();

// From here on gRPC is silent, too. For the end of the server, which makes gRPC complain.
void SilenceLibraryLogs();

}  // namespace swiglu::server
