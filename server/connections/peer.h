// SPDX-License-Identifier: Apache-2.0
//
// The name of a call's peer, in the words of the log.
#pragma once

#include <string>

#include "absl/strings/string_view.h"

namespace swiglu::server {

// `peer`, a name as gRPC gives it (`grpc::ServerContext::peer`), for people: `ipv4:10.0.0.1:1234`,
// `ipv6:[::1]:1234`. A peer on a unix socket is `unix:` with what its socket is bound to, which as
// a rule is nothing; Connections knows more of it.
std::string ReadablePeer(absl::string_view peer);

}  // namespace swiglu::server
