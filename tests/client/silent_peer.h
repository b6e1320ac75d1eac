// SPDX-License-Identifier: Apache-2.0
//
// Peers that do less than a server: a port where nobody listens, and one who takes a connection and
// reads nothing. Sockets and no gRPC.
#pragma once

#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "gtest/gtest.h"

namespace swiglu::client {

// A TCP port of this machine. Bound, it can be refused for sure; listening, a client can connect.
class Port {
 public:
  Port() : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    EXPECT_EQ(bind(fd_, reinterpret_cast<sockaddr*>(&address), size), 0);
    EXPECT_EQ(getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &size), 0);
    address_ = absl::StrCat("127.0.0.1:", ntohs(address.sin_port));
  }
  ~Port() { close(fd_); }

  int fd() const { return fd_; }
  const std::string& address() const { return address_; }

 private:
  const int fd_;
  std::string address_;
};

// A server that greets as HTTP/2 does, opens its windows wide, and then reads nothing: the kernel
// holds the beginning of a message and gRPC the rest, until `HangUp`.
class SilentPeer {
 public:
  SilentPeer() {
    EXPECT_EQ(listen(port_.fd(), 1), 0);
    thread_ = std::thread([this] {
      const int fd = accept(port_.fd(), nullptr, nullptr);
      if (fd < 0) return;  // nobody came before `HangUp`
      const std::string greeting(
          "\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x04\x7f\xff\xff\xff"  // SETTINGS: window 2^31-1
          "\x00\x00\x04\x08\x00\x00\x00\x00\x00\x7f\xff\x00\x00",         // WINDOW_UPDATE of all
          28);
      if (send(fd, greeting.data(), greeting.size(), MSG_NOSIGNAL) == 28) {
        hang_up_.WaitForNotification();
        EXPECT_EQ(ioctl(fd, FIONREAD, &num_held_bytes_), 0);
      }
      close(fd);
    });
  }

  const std::string& address() const { return port_.address(); }

  // Closes the connection; true if a message, and not only a greeting, had begun to arrive on it.
  bool HangUp() {
    hang_up_.Notify();
    shutdown(port_.fd(), SHUT_RDWR);
    thread_.join();
    return num_held_bytes_ > 16 << 10;
  }

 private:
  const Port port_;
  absl::Notification hang_up_;
  int num_held_bytes_ = 0;
  std::thread thread_;
};

}  // namespace swiglu::client
