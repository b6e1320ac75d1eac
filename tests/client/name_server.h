// SPDX-License-Identifier: Apache-2.0
//
// A name server that knows one answer: every name has the same IPv4 addresses. Sockets and no gRPC.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstddef>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

namespace swiglu::client {

// Answers over UDP from construction to destruction.
class NameServer {
 public:
  explicit NameServer(std::vector<std::string> addresses)
      : addresses_(std::move(addresses)), fd_(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    EXPECT_EQ(bind(fd_, reinterpret_cast<sockaddr*>(&address), size), 0);
    EXPECT_EQ(getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &size), 0);
    own_ = address;
    thread_ = std::thread([this] { Serve(); });
  }
  ~NameServer() {
    // An empty query ends it.
    sendto(fd_, "", 0, 0, reinterpret_cast<const sockaddr*>(&own_), sizeof(own_));
    thread_.join();
    close(fd_);
  }
  NameServer(const NameServer&) = delete;
  NameServer& operator=(const NameServer&) = delete;

  // HOST:PORT.
  std::string address() const { return absl::StrCat("127.0.0.1:", ntohs(own_.sin_port)); }

 private:
  static constexpr size_t kHeaderBytes = 12;

  void Serve() {
    char query[512];
    sockaddr_in peer{};
    while (true) {
      socklen_t peer_size = sizeof(peer);
      const ssize_t size =
          recvfrom(fd_, query, sizeof(query), 0, reinterpret_cast<sockaddr*>(&peer), &peer_size);
      if (size <= static_cast<ssize_t>(kHeaderBytes)) return;
      const std::string answer = AnswerTo(std::string(query, static_cast<size_t>(size)));
      sendto(fd_, answer.data(), answer.size(), 0, reinterpret_cast<const sockaddr*>(&peer),
             peer_size);
    }
  }

  // RFC 1035: the query's id and question, and a record for each address if it asks for type A.
  std::string AnswerTo(const std::string& query) const {
    const size_t name_end = query.find('\0', kHeaderBytes);
    const std::string question = query.substr(kHeaderBytes, name_end + 5 - kHeaderBytes);
    const bool is_for_ipv4 = query[name_end + 2] == 1;
    const char num_answers = static_cast<char>(is_for_ipv4 ? addresses_.size() : 0);
    std::string answer = query.substr(0, 2);
    answer += std::string("\x81\x80\x00\x01\x00", 5) + num_answers + std::string(4, '\0');
    answer += question;
    for (char i = 0; i < num_answers; ++i) {
      // The name at offset 12, type A, class IN, 60 s, 4 bytes.
      answer += std::string("\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04", 12);
      in_addr ipv4{};
      EXPECT_EQ(inet_pton(AF_INET, addresses_[static_cast<size_t>(i)].c_str(), &ipv4), 1);
      answer.append(reinterpret_cast<const char*>(&ipv4), sizeof(ipv4));
    }
    return answer;
  }

  const std::vector<std::string> addresses_;
  const int fd_;
  sockaddr_in own_{};
  std::thread thread_;
};

}  // namespace swiglu::client
