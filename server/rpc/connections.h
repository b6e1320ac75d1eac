// SPDX-License-Identifier: Apache-2.0
//
// The connections of a listening address, from below gRPC, which hides them: knows sockets and
// nothing of what goes over them. docs/adr/0010 says why.
#pragma once

#include <string>

#include "absl/time/time.h"

namespace swiglu::server {

// Takes no more connections at `address` (`HOST:PORT` or `unix:/path`, as the server listens on it)
// and closes our direction of those that this process has there, each when its peer has
// acknowledged what was written until now, at `deadline` at the latest; who closes earlier may lose
// that. A peer's call that has no answer by then fails there as UNAVAILABLE. Finds the sockets in
// /proc: every one of this process that is bound to the address's port, whatever the host. Without
// /proc nothing happens. Blocks until `deadline` at most. REQUIRES: the process is about to end its
// server; what still writes meets a broken pipe.
void CloseConnections(const std::string& address, absl::Time deadline);

}  // namespace swiglu::server
