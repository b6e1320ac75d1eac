// SPDX-License-Identifier: Apache-2.0
//
// What gRPC and protobuf log themselves, through our log or not at all.
#pragma once

namespace swiglu::server {

// From here on what gRPC has to complain about becomes a rate-limited warning of ours, and protobuf
// is silent: its complaints are about messages, and go back to their senders. Call once, before any
// other use of either.
void RouteLibraryLogs();

// From here on gRPC is silent, too: it would complain of what happens to it.
void SilenceLibraryLogs();

}  // namespace swiglu::server
