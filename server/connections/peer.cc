// SPDX-License-Identifier: Apache-2.0
//
// gRPC gives addresses as URIs: what is no letter of a URI's path is escaped, the brackets of IPv6
// among them.
#include "server/connections/peer.h"

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"

namespace swiglu::server {

std::string ReadablePeer(absl::string_view peer) {
  std::string name;
  while (!peer.empty()) {
    const bool is_escape = peer[0] == '%' && peer.size() >= 3 && absl::ascii_isxdigit(peer[1]) &&
                           absl::ascii_isxdigit(peer[2]);
    name += is_escape ? absl::HexStringToBytes(peer.substr(1, 2)) : std::string(1, peer[0]);
    peer.remove_prefix(is_escape ? 3 : 1);
  }
  return name;
}

}  // namespace swiglu::server
