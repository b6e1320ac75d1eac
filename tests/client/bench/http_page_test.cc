// SPDX-License-Identifier: Apache-2.0
//
// Pages of servers that listen, that do not, and that do not answer.
#include <netinet/in.h>
#include <sys/socket.h>

#include <string>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/bench/server_usage.h"
#include "gtest/gtest.h"

namespace swiglu::bench {
namespace {

// A port of the loopback of IPv4 or IPv6. Listening, it takes connections; if not, it refuses them.
class LocalPort {
 public:
  explicit LocalPort(int family = AF_INET) : socket_(::socket(family, SOCK_STREAM, 0)) {
    sockaddr_in v4 = {};
    v4.sin_family = AF_INET;
    v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    sockaddr_in6 v6 = {};
    v6.sin6_family = AF_INET6;
    v6.sin6_addr = in6addr_loopback;
    const bool is_v4 = family == AF_INET;
    size_ = is_v4 ? sizeof(v4) : sizeof(v6);
    is_there_ = bind(socket_.get(),
                     is_v4 ? reinterpret_cast<sockaddr*>(&v4) : reinterpret_cast<sockaddr*>(&v6),
                     size_) == 0;
    getsockname(socket_.get(), reinterpret_cast<sockaddr*>(&address_), &size_);
    // Nobody waits for ever for a client that does not come.
    const timeval patience = {.tv_sec = 30, .tv_usec = 0};
    setsockopt(socket_.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    info_.ai_family = family;
    info_.ai_addr = reinterpret_cast<sockaddr*>(&address_);
    info_.ai_addrlen = size_;
  }

  bool is_there() const { return is_there_; }
  void Listen() { ASSERT_EQ(listen(socket_.get(), 4), 0); }
  // As the resolver gives it, with `next` after it.
  const addrinfo* Info(const addrinfo* next) {
    info_.ai_next = const_cast<addrinfo*>(next);
    return &info_;
  }
  int port() const { return ntohs(reinterpret_cast<const sockaddr_in*>(&address_)->sin_port); }

  // Takes one connection, reads a request, answers, closes. Gives the request.
  std::string Serve(const std::string& answer) const {
    const server::Descriptor peer(accept(socket_.get(), nullptr, nullptr));
    std::string request;
    char c = 0;
    while (!absl::EndsWith(request, "\r\n\r\n") && recv(peer.get(), &c, 1, 0) == 1) {
      request.push_back(c);
    }
    send(peer.get(), answer.data(), answer.size(), MSG_NOSIGNAL);
    return request;
  }

 private:
  const server::Descriptor socket_;
  sockaddr_storage address_ = {};
  socklen_t size_ = 0;
  addrinfo info_ = {};
  bool is_there_ = false;
};

TEST(ConnectToAnyTest, TriesEveryAddress) {
  LocalPort first, second, third;
  third.Listen();
  const absl::Time deadline = absl::Now() + absl::Seconds(20);
  const auto socket = ConnectToAny(first.Info(second.Info(third.Info(nullptr))), deadline);
  ASSERT_TRUE(socket.ok()) << socket.status();
  EXPECT_EQ(ConnectToAny(first.Info(second.Info(nullptr)), deadline).status(),
            absl::UnavailableError("no connection: Connection refused"));
}

TEST(ConnectToAnyTest, HasNoTimeBeyondTheDeadline) {
  LocalPort port;
  EXPECT_FALSE(ConnectToAny(port.Info(nullptr), absl::InfinitePast()).ok());
}

TEST(HttpPageTest, AsksForThePageAndReadsToTheEnd) {
  LocalPort port;
  port.Listen();
  const std::string page = "HTTP/1.1 200 OK\r\n\r\n" + std::string(100'000, 'x');
  std::string request;
  std::thread server([&] { request = port.Serve(page); });
  const auto answer =
      ReadHttpPage(absl::StrCat("127.0.0.1:", port.port()), "/metrics", absl::Seconds(20));
  server.join();
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(*answer, page);
  EXPECT_EQ(request, absl::StrCat("GET /metrics HTTP/1.1\r\nHost: 127.0.0.1:", port.port(),
                                  "\r\nConnection: close\r\n\r\n"));
}

TEST(HttpPageTest, TakesAnIpv6AddressInBrackets) {
  LocalPort port(AF_INET6);
  if (!port.is_there()) GTEST_SKIP() << "this machine has no IPv6";
  port.Listen();
  std::thread server([&] { port.Serve("page"); });
  const auto answer =
      ReadHttpPage(absl::StrCat("[::1]:", port.port()), "/metrics", absl::Seconds(20));
  server.join();
  EXPECT_EQ(answer.value_or(""), "page");
}

TEST(HttpPageTest, SaysWhyThereIsNone) {
  LocalPort port;
  const std::string address = absl::StrCat("127.0.0.1:", port.port());
  EXPECT_EQ(ReadHttpPage(address, "/metrics", absl::Seconds(20)).status(),
            absl::UnavailableError(absl::StrCat("no page http://", address,
                                                "/metrics: no connection: Connection refused")));
  // The kernel takes the connection, and nobody answers.
  port.Listen();
  EXPECT_EQ(ReadHttpPage(address, "/metrics", absl::Milliseconds(50)).status(),
            absl::UnavailableError(
                absl::StrCat("no page http://", address, "/metrics: no whole answer within 50ms")));
}

}  // namespace
}  // namespace swiglu::bench
