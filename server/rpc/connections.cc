// SPDX-License-Identifier: Apache-2.0
//
// Sockets by their local address.
#include "server/rpc/connections.h"

#include <fcntl.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/time/clock.h"
#include "server/rpc/descriptor.h"
#include "server/rpc/listen_address.h"

namespace swiglu::server {
namespace {

// How often it is looked whether a peer has taken what it is sent.
constexpr absl::Duration kLookInterval = absl::Microseconds(200);

// TCP_ESTABLISHED of <netinet/tcp.h>, which does not go together with <linux/tcp.h>.
constexpr int kEstablished = 1;

// The socket's port, or -1.
int LocalPort(const sockaddr_storage& local) {
  if (local.ss_family == AF_INET) {
    return ntohs(reinterpret_cast<const sockaddr_in&>(local).sin_port);
  }
  if (local.ss_family == AF_INET6) {
    return ntohs(reinterpret_cast<const sockaddr_in6&>(local).sin6_port);
  }
  return -1;
}

// Whether the socket is bound there: whoever listens and whom it accepted.
bool IsBoundTo(int fd, const std::string& address) {
  sockaddr_storage local{};
  socklen_t size = sizeof(local);
  if (::getsockname(fd, reinterpret_cast<sockaddr*>(&local), &size) != 0) return false;
  const std::string path = UnixSocketPath(address);
  if (!path.empty()) {
    return local.ss_family == AF_UNIX &&
           path == reinterpret_cast<const sockaddr_un&>(local).sun_path;
  }
  int port = 0;
  return absl::SimpleAtoi(address.substr(address.rfind(':') + 1), &port) &&
         LocalPort(local) == port;
}

bool IsListening(int fd) {
  int listens = 0;
  socklen_t size = sizeof(listens);
  return ::getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) == 0 && listens != 0;
}

// Descriptors of our own for those sockets, so that none is another's by the time it is used.
std::vector<Descriptor> SocketsBoundTo(const std::string& address) {
  std::vector<Descriptor> sockets;
  std::error_code error;
  std::filesystem::directory_iterator entry("/proc/self/fd", error);
  for (; !error && entry != std::filesystem::directory_iterator(); entry.increment(error)) {
    int fd = -1;
    if (!absl::SimpleAtoi(entry->path().filename().string(), &fd) || !IsBoundTo(fd, address)) {
      continue;
    }
    Descriptor socket(::fcntl(fd, F_DUPFD_CLOEXEC, 0));
    if (IsBoundTo(socket.get(), address)) sockets.push_back(std::move(socket));
  }
  return sockets;
}

// What the peer has acknowledged since the connection began; none if that cannot be said: on a unix
// socket what was written lies with the peer.
std::optional<uint64_t> AcknowledgedBytes(int fd) {
  tcp_info info{};
  socklen_t size = sizeof(info);
  if (::getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) != 0) return std::nullopt;
  const bool says_it = size >= offsetof(tcp_info, tcpi_bytes_acked) + sizeof(uint64_t);
  if (!says_it || info.tcpi_state != kEstablished) return std::nullopt;
  return info.tcpi_bytes_acked;
}

// Waits until the peer has what it is being sent now; more may be written meanwhile.
void AwaitTaken(int fd, absl::Time deadline) {
  std::optional<uint64_t> acknowledged = AcknowledgedBytes(fd);
  int num_held_bytes = 0;
  if (::ioctl(fd, SIOCOUTQ, &num_held_bytes) != 0) return;
  const uint64_t wanted = acknowledged.value_or(0) + num_held_bytes;
  while (acknowledged.has_value() && *acknowledged < wanted && absl::Now() < deadline) {
    absl::SleepFor(kLookInterval);
    acknowledged = AcknowledgedBytes(fd);
  }
}

}  // namespace

void CloseConnections(const std::string& address, absl::Time deadline) {
  // Who listens first, so that nobody whose connection ends gets another one.
  for (const Descriptor& socket : SocketsBoundTo(address)) {
    if (IsListening(socket.get())) ::shutdown(socket.get(), SHUT_RD);
  }
  for (const Descriptor& socket : SocketsBoundTo(address)) {
    if (IsListening(socket.get())) continue;
    AwaitTaken(socket.get(), deadline);
    ::shutdown(socket.get(), SHUT_WR);
  }
}

}  // namespace swiglu::server
