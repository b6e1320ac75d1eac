// SPDX-License-Identifier: Apache-2.0
//
// From an address as a user writes it to sockets that listen.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

namespace swiglu::server {

// Owns a file descriptor. Move-only.
class FileDescriptor {
 public:
  FileDescriptor() = default;
  explicit FileDescriptor(int fd) : fd_(fd) {}
  FileDescriptor(FileDescriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~FileDescriptor();

  // -1 when it owns none.
  int get() const { return fd_; }

 private:
  int fd_ = -1;
};

// Sockets that listen on one port, non-blocking; several where a name stands for several addresses.
struct ListenSockets {
  std::vector<FileDescriptor> sockets;  // at least one
  int port = 0;
};

// Listens on `address`: `HOST:PORT`, where HOST is a name, an IPv4 address or an IPv6 address in
// brackets, and port 0 takes a free one. Resolving a name may block. On error nothing is left open:
// INVALID_ARGUMENT where `address` is not such an address, else FAILED_PRECONDITION: "cannot listen
// on 127.0.0.1:8002: Address already in use".
absl::StatusOr<ListenSockets> Listen(const std::string& address);

}  // namespace swiglu::server
