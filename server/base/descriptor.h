// SPDX-License-Identifier: Apache-2.0
//
// A move-only owner of a file descriptor.
#pragma once

#include <unistd.h>

#include <utility>

namespace swiglu::server {

class Descriptor {
 public:
  Descriptor() = default;
  // Takes ownership of `fd`. A negative `fd` means no descriptor.
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }

  // Negative if this object owns no descriptor.
  int get() const { return fd_; }
  // Gives the ownership of the descriptor to the caller.
  int Release() { return std::exchange(fd_, -1); }

 private:
  int fd_ = -1;
};

}  // namespace swiglu::server
