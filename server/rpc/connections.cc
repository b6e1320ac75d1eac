// SPDX-License-Identifier: Apache-2.0
//
// Sockets by their local address.
#include "server/rpc/connections.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cstring>
#include <filesystem>
#include <system_error>
#include <vector>

#include "absl/strings/numbers.h"
#include "server/rpc/listen_address.h"

namespace swiglu::server {
namespace {

// The sockets of this process that are bound to `address`: whoever listens and whom it accepted.
bool IsBoundTo(int fd, const std::string& address) {
  sockaddr_storage local{};
  socklen_t size = sizeof(local);
  if (::getsockname(fd, reinterpret_cast<sockaddr*>(&local), &size) != 0) return false;
  if (local.ss_family == AF_UNIX) {
    // A peer's socket, if it is in this process, has no path.
    const std::string path = UnixSocketPath(address);
    return !path.empty() && path == reinterpret_cast<const sockaddr_un&>(local).sun_path;
  }
  int port = 0;
  if (!absl::SimpleAtoi(address.substr(address.rfind(':') + 1), &port)) return false;
  if (local.ss_family == AF_INET) {
    return ntohs(reinterpret_cast<const sockaddr_in&>(local).sin_port) == port;
  }
  return local.ss_family == AF_INET6 &&
         ntohs(reinterpret_cast<const sockaddr_in6&>(local).sin6_port) == port;
}

bool IsListening(int fd) {
  int listens = 0;
  socklen_t size = sizeof(listens);
  return ::getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) == 0 && listens != 0;
}

std::vector<int> SocketsBoundTo(const std::string& address) {
  std::vector<int> sockets;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd", error)) {
    int fd = -1;
    if (absl::SimpleAtoi(entry.path().filename().string(), &fd) && IsBoundTo(fd, address)) {
      sockets.push_back(fd);
    }
  }
  return sockets;
}

}  // namespace

void CloseConnections(const std::string& address) {
  // Who listens first, so that nobody whose connection ends gets another one.
  for (const int fd : SocketsBoundTo(address)) {
    if (IsListening(fd)) ::shutdown(fd, SHUT_RD);
  }
  for (const int fd : SocketsBoundTo(address)) {
    if (!IsListening(fd)) ::shutdown(fd, SHUT_WR);
  }
}

}  // namespace swiglu::server
