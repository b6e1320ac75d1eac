// SPDX-License-Identifier: Apache-2.0
//
// Splits and resolves the address, then opens a listening socket for each address that it stands
// for.
#include "server/metrics/listen_socket.h"

#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace swiglu::server {
namespace {

constexpr int kBacklog = 64;

struct HostPort {
  std::string host;
  int port = 0;
};

absl::StatusOr<HostPort> Split(const std::string& address) {
  const absl::Status malformed = absl::InvalidArgumentError(
      absl::StrCat("'", address, "' is not an address: HOST:PORT is needed"));
  const size_t colon = address.rfind(':');
  HostPort split;
  if (colon == std::string::npos || colon == 0 ||
      !absl::SimpleAtoi(address.substr(colon + 1), &split.port) || split.port < 0 ||
      split.port > 65535) {
    return malformed;
  }
  split.host = address.substr(0, colon);
  if (split.host.size() > 2 && split.host.front() == '[' && split.host.back() == ']') {
    split.host = split.host.substr(1, split.host.size() - 2);
  } else if (split.host.find_first_of(":[]") != std::string::npos) {
    return malformed;
  }
  return split;
}

// A socket that listens on `where`, or errno.
struct Opened {
  FileDescriptor socket;
  int error = 0;
};
Opened Open(const addrinfo& where) {
  Opened opened{FileDescriptor(
      ::socket(where.ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, where.ai_protocol))};
  const int fd = opened.socket.get();
  const int on = 1;
  const int off = 0;
  if (fd >= 0) ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  // [::] takes IPv4 too.
  if (fd >= 0 && where.ai_family == AF_INET6) {
    ::setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
  }
  if (fd < 0 || ::bind(fd, where.ai_addr, where.ai_addrlen) != 0 || ::listen(fd, kBacklog) != 0) {
    opened.error = errno;
  }
  return opened;
}

int PortOf(const FileDescriptor& socket) {
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

}  // namespace

FileDescriptor::~FileDescriptor() {
  if (fd_ >= 0) ::close(fd_);
}

absl::StatusOr<ListenSockets> Listen(const std::string& address) {
  absl::StatusOr<HostPort> split = Split(address);
  if (!split.ok()) return split.status();
  const auto cannot = [&address](absl::string_view why) {
    return absl::FailedPreconditionError(absl::StrCat("cannot listen on ", address, ": ", why));
  };

  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  addrinfo* found = nullptr;
  const int unresolved = ::getaddrinfo(split->host.c_str(), nullptr, &hints, &found);
  if (unresolved != 0) return cannot(::gai_strerror(unresolved));
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> owner(found, &::freeaddrinfo);

  // Of a name's addresses those that this machine does not have are left out, but none may be
  // taken.
  ListenSockets listening;
  listening.port = split->port;
  int error = 0;
  for (addrinfo* where = found; where != nullptr; where = where->ai_next) {
    SetPort(*where, listening.port);
    Opened opened = Open(*where);
    if (opened.error == EADDRINUSE) return cannot(std::strerror(opened.error));
    if (opened.error != 0) {
      error = opened.error;
      continue;
    }
    listening.port = PortOf(opened.socket);
    listening.sockets.push_back(std::move(opened.socket));
  }
  if (listening.sockets.empty()) return cannot(std::strerror(error));
  return listening;
}

}  // namespace swiglu::server
