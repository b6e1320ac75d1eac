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
  // Takes over `fd`; a negative one stands for none.
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }

  // Negative if it owns none.
  int get() const { return fd_; }
  // Gives the descriptor to the caller.
  int Release() { return std::exchange(fd_, -1); }

 private:
  int fd_ = -1;
};

}  // namespace swiglu::server
