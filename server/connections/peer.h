// SPDX-License-Identifier: Apache-2.0
//
// The name of a call's peer, in the words of the log.
#pragma once

#include <string>

#include "absl/strings/string_view.h"

namespace swiglu::server {

// `peer`, a name as gRPC gives it (`grpc::ServerContext::peer`), for people: `ipv4:10.0.0.1:1234`,
// `ipv6:[::1]:1234`. For a peer on a unix socket it is `unix:` and the path that the peer's socket
// is bound to, usually none. `Connections::Describe` says more about such a peer.
std::string ReadablePeer(absl::string_view peer);

}  // namespace swiglu::server
