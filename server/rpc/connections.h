// SPDX-License-Identifier: Apache-2.0
//
// The connections of a listening address, from below gRPC, which hides them: knows sockets and
// nothing of what goes over them.
#pragma once

#include <string>

namespace swiglu::server {

// Takes no more connections at `address` (`HOST:PORT` or `unix:/path`, as the server listens on it)
// and closes our direction of those that this process has there: their peers get what was written
// and then the end. A peer's call that has no answer by then fails there as UNAVAILABLE. Finds them
// in /proc; where there is none, nothing happens. REQUIRES: the process is about to end its server;
// what still writes meets a broken pipe.
void CloseConnections(const std::string& address);

}  // namespace swiglu::server
