// SPDX-License-Identifier: Apache-2.0
//
// Sends what gRPC logs to our log, or silences it. Silences protobuf.
#pragma once

namespace swiglu::server {

// After this call, the errors that gRPC logs become rate-limited warnings in our log. Protobuf is
// silent: it logs only errors in messages, of which we tell the sender. Call this once, before all
// use of gRPC or protobuf.
void RouteLibraryLogs();

// After this call gRPC is silent, too. For the end of the server, during which gRPC logs errors.
void SilenceLibraryLogs();

}  // namespace swiglu::server
