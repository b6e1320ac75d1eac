// SPDX-License-Identifier: Apache-2.0
//
// A trial bind for TCP, a trial connect for unix sockets.
#include "server/rpc/listen_address.h"

#include <netdb.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "server/rpc/descriptor.h"

namespace swiglu::server {
namespace {

absl::Status CannotListen(const std::string& address, absl::string_view why) {
  return absl::FailedPreconditionError(absl::StrCat("cannot listen on ", address, ": ", why));
}

absl::Status NotAnAddress(const std::string& address) {
  return absl::InvalidArgumentError(
      absl::StrCat("'", address, "' is not an address: HOST:PORT or unix:/path is needed"));
}

absl::Status PrepareUnix(const std::string& address, const std::string& path) {
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  if (path.size() >= sizeof(name.sun_path)) {
    return CannotListen(address, absl::StrCat("the path has ", path.size(), " bytes; at most ",
                                              sizeof(name.sun_path) - 1, " are possible"));
  }
  struct stat info {};
  if (::lstat(path.c_str(), &info) != 0) {
    if (errno != ENOENT) return CannotListen(address, std::strerror(errno));
    // Nothing is there, which is fine in a folder that takes a new file.
    const std::string folder = path.substr(0, path.rfind('/') + 1);
    if (::access(folder.empty() ? "." : folder.c_str(), W_OK | X_OK) == 0) return absl::OkStatus();
    return CannotListen(address, std::strerror(errno));
  }
  if (!S_ISSOCK(info.st_mode)) return CannotListen(address, "a file that is no socket is there");
  std::memcpy(name.sun_path, path.data(), path.size());
  const Descriptor probe(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (::connect(probe.get(), reinterpret_cast<const sockaddr*>(&name), sizeof(name)) == 0) {
    return CannotListen(address, "another server answers there");
  }
  // Only a refusal shows that nobody listens there any more.
  if (errno != ECONNREFUSED) return CannotListen(address, std::strerror(errno));
  if (::unlink(path.c_str()) != 0) return CannotListen(address, std::strerror(errno));
  return absl::OkStatus();
}

absl::Status PrepareTcp(const std::string& address) {
  const size_t colon = address.rfind(':');
  int port = 0;
  if (colon == std::string::npos || colon == 0 ||
      !absl::SimpleAtoi(address.substr(colon + 1), &port) || port < 0 || port > 65535) {
    return NotAnAddress(address);
  }
  std::string host = address.substr(0, colon);
  if (host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);

  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  addrinfo* found = nullptr;
  const int error = ::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found);
  if (error != 0) return CannotListen(address, ::gai_strerror(error));
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> owner(found, &::freeaddrinfo);
  const Descriptor probe(::socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int on = 1;
  ::setsockopt(probe.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  if (::bind(probe.get(), found->ai_addr, found->ai_addrlen) != 0) {
    return CannotListen(address, std::strerror(errno));
  }
  return absl::OkStatus();
}

}  // namespace

std::string UnixSocketPath(const std::string& address) {
  absl::string_view path = address;
  if (!absl::ConsumePrefix(&path, "unix:")) return "";
  // `unix:///path` is another way to write `unix:/path`.
  absl::ConsumePrefix(&path, "//");
  return std::string(path);
}

absl::Status PrepareListenAddress(const std::string& address) {
  if (address.rfind("unix:", 0) != 0) return PrepareTcp(address);
  const std::string path = UnixSocketPath(address);
  return path.empty() ? NotAnAddress(address) : PrepareUnix(address, path);
}

}  // namespace swiglu::server
