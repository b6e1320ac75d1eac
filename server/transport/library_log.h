// SPDX-License-Identifier: Apache-2.0
//
// Sends what gRPC logs to our log, or silences it. Silences protobuf.
#pragma once

namespace swiglu::server {

// After this call, errors that gRPC logs become rate-limited warnings in our log, and its other
// lines become debug lines. A failed assertion in gRPC becomes an error. Protobuf logs nothing any
// more: it would log only errors in messages, and the server tells the sender of these. Call this
// once, before any use of gRPC or protobuf.
void RouteLibraryLogs();

// After this call gRPC is silent, too. For the end of the server, during which gRPC logs errors.
void SilenceLibraryLogs();

}  // namespace swiglu::server
