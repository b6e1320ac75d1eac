// SPDX-License-Identifier: Apache-2.0
//
// Resolves a name, and opens a listening socket for each of its addresses. Or makes a unix socket.
#include "server/base/listen_socket.h"

#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "server/base/address.h"

namespace swiglu::server {
namespace {

// How many connections may wait in the kernel for an accept. The kernel may allow fewer.
constexpr int kBacklog = 1024;

absl::Status CannotListen(absl::string_view address, absl::string_view why) {
  return absl::FailedPreconditionError(absl::StrCat("cannot listen on ", address, ": ", why));
}

// A listening socket, or the errno value of the failure.
struct Opened {
  Descriptor socket;
  int error = 0;
};

Opened Open(const addrinfo& where) {
  Opened opened{Descriptor(
      ::socket(where.ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, where.ai_protocol))};
  const int fd = opened.socket.get();
  const int on = 1;
  const int off = 0;
  if (fd >= 0) ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  // [::] must accept IPv4, too.
  if (fd >= 0 && where.ai_family == AF_INET6) {
    ::setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
  }
  if (fd < 0 || ::bind(fd, where.ai_addr, where.ai_addrlen) != 0 || ::listen(fd, kBacklog) != 0) {
    opened.error = errno;
  }
  return opened;
}

int PortOf(const Descriptor& socket) {
  sockaddr_storage name{};
  socklen_t size = sizeof(name);
  ::getsockname(socket.get(), reinterpret_cast<sockaddr*>(&name), &size);
  return ntohs(name.ss_family == AF_INET6 ? reinterpret_cast<const sockaddr_in6&>(name).sin6_port
                                          : reinterpret_cast<const sockaddr_in&>(name).sin_port);
}

void SetPort(addrinfo& where, int port) {
  const in_port_t wire_port = htons(static_cast<uint16_t>(port));
  if (where.ai_family == AF_INET6) {
    reinterpret_cast<sockaddr_in6*>(where.ai_addr)->sin6_port = wire_port;
  } else if (where.ai_family == AF_INET) {
    reinterpret_cast<sockaddr_in*>(where.ai_addr)->sin_port = wire_port;
  }
}

bool IsEveryIpv4Address(const addrinfo& where) {
  return where.ai_family == AF_INET &&
         reinterpret_cast<const sockaddr_in*>(where.ai_addr)->sin_addr.s_addr == htonl(INADDR_ANY);
}

// Opens a socket for all addresses of the machine, IPv4 and IPv6. Fails if there is no IPv6.
Opened OpenEverywhere(int port) {
  sockaddr_in6 every{};
  every.sin6_family = AF_INET6;
  every.sin6_addr = in6addr_any;
  every.sin6_port = htons(static_cast<uint16_t>(port));
  addrinfo where{};
  where.ai_family = AF_INET6;
  where.ai_addr = reinterpret_cast<sockaddr*>(&every);
  where.ai_addrlen = sizeof(every);
  return Open(where);
}

// Removes the socket file of a server that has ended. OK if `name` is free afterwards.
absl::Status RemoveStale(const sockaddr_un& name, const std::string& address) {
  struct stat info {};
  if (::lstat(name.sun_path, &info) != 0) {
    return errno == ENOENT ? absl::OkStatus() : CannotListen(address, std::strerror(errno));
  }
  if (!S_ISSOCK(info.st_mode)) return CannotListen(address, "a file that is no socket is there");
  const Descriptor probe(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (::connect(probe.get(), reinterpret_cast<const sockaddr*>(&name), sizeof(name)) == 0) {
    return CannotListen(address, "another server answers there");
  }
  // Only a refused connection shows that no server listens there any more.
  if (errno != ECONNREFUSED) return CannotListen(address, std::strerror(errno));
  if (::unlink(name.sun_path) != 0) return CannotListen(address, std::strerror(errno));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ListenSockets> ListenTcp(const std::string& address) {
  const std::optional<HostPort> split = ParseHostPort(address);
  if (!split.has_value()) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", address, "' is not an address: HOST:PORT is needed"));
  }

  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  addrinfo* found = nullptr;
  const int unresolved = ::getaddrinfo(split->host.c_str(), nullptr, &hints, &found);
  if (unresolved != 0) return CannotListen(address, ::gai_strerror(unresolved));
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> owner(found, &::freeaddrinfo);

  // Skips those addresses of a name that this machine does not have. Fails if one is in use.
  ListenSockets listening;
  listening.port = split->port;
  int error = 0;
  for (addrinfo* where = found; where != nullptr; where = where->ai_next) {
    SetPort(*where, listening.port);
    Opened opened;
    if (IsEveryIpv4Address(*where)) opened = OpenEverywhere(listening.port);
    if (opened.socket.get() < 0 || (opened.error != 0 && opened.error != EADDRINUSE)) {
      opened = Open(*where);
    }
    if (opened.error == EADDRINUSE) return CannotListen(address, std::strerror(opened.error));
    if (opened.error != 0) {
      error = opened.error;
      continue;
    }
    listening.port = PortOf(opened.socket);
    listening.sockets.push_back(std::move(opened.socket));
  }
  if (listening.sockets.empty()) return CannotListen(address, std::strerror(error));
  return listening;
}

absl::StatusOr<ListenSockets> ListenUnix(const std::string& path, int mode) {
  const std::string address = absl::StrCat("unix:", path);
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  if (path.size() >= sizeof(name.sun_path)) {
    return CannotListen(address, absl::StrCat("the path has ", path.size(), " bytes; at most ",
                                              sizeof(name.sun_path) - 1, " are possible"));
  }
  std::memcpy(name.sun_path, path.data(), path.size());
  const absl::Status free = RemoveStale(name, address);
  if (!free.ok()) return free;

  Descriptor socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (socket.get() < 0) return CannotListen(address, std::strerror(errno));
  // The file never has more permissions than `mode`: bind gives it the socket's permissions minus
  // the umask, and chmod restores what the umask took. Nobody can connect before `listen`.
  ::fchmod(socket.get(), static_cast<mode_t>(mode));
  if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&name), sizeof(name)) != 0) {
    return CannotListen(address, std::strerror(errno));
  }
  if (::chmod(name.sun_path, static_cast<mode_t>(mode)) != 0 ||
      ::listen(socket.get(), kBacklog) != 0) {
    const absl::Status status = CannotListen(address, std::strerror(errno));
    ::unlink(name.sun_path);
    return status;
  }
  ListenSockets listening;
  listening.sockets.push_back(std::move(socket));
  return listening;
}

}  // namespace swiglu::server
