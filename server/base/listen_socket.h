// SPDX-License-Identifier: Apache-2.0
//
// Makes listening sockets from an address that a user has written.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/base/descriptor.h"

namespace swiglu::server {

// Listening, non-blocking sockets.
struct ListenSockets {
  // At least one. Several if the host's name has several addresses.
  std::vector<Descriptor> sockets;
  // The port of all of them; 0 for a unix socket.
  int port = 0;
};

// Listens on `address`, which is `HOST:PORT` as `ParseHostPort` reads it. Port 0 takes a free port.
// `0.0.0.0` and `[::]` both mean all addresses of the machine, IPv4 and IPv6. Resolving a name may
// block. On error no socket stays open. Errors: INVALID_ARGUMENT if `address` has another form,
// else FAILED_PRECONDITION: "cannot listen on 127.0.0.1:8002: Address already in use".
absl::StatusOr<ListenSockets> ListenTcp(const std::string& address);

// Creates the unix socket `path` with the permissions `mode`, and listens on it. Replaces the
// socket file of a server that has ended. On any error, returns FAILED_PRECONDITION with the
// address and the reason. It is an error if a server still answers there. On error no socket stays
// open, and files that are not sockets stay as they are.
absl::StatusOr<ListenSockets> ListenUnix(const std::string& path, int mode);

}  // namespace swiglu::server
