// SPDX-License-Identifier: Apache-2.0
//
// Turns an address, in the form in which a user writes it, into sockets that listen.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/base/descriptor.h"

namespace swiglu::server {

// Sockets that listen, non-blocking.
struct ListenSockets {
  // At least one; several where a name stands for several addresses.
  std::vector<Descriptor> sockets;
  // The port of all of them; 0 for a unix socket.
  int port = 0;
};

// Listens on `address`: `HOST:PORT`, where HOST is a name, an IPv4 address or an IPv6 address in
// brackets, and port 0 takes a free one. `0.0.0.0` and `[::]` both stand for every address of the
// machine, IPv4 and IPv6. Resolving a name may block. On error nothing is left open:
// INVALID_ARGUMENT where `address` is not such an address, else FAILED_PRECONDITION: "cannot listen
// on 127.0.0.1:8002: Address already in use".
absl::StatusOr<ListenSockets> ListenTcp(const std::string& address);

// Listens on the unix socket `path`, which is made with the permissions `mode`. Removes the socket
// file of a server that is gone. If a server still answers there, that is an error. On error
// nothing is left open, and no other file is touched: FAILED_PRECONDITION with the address and the
// reason.
absl::StatusOr<ListenSockets> ListenUnix(const std::string& path, int mode);

}  // namespace swiglu::server
