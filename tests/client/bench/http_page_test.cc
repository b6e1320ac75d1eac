// SPDX-License-Identifier: Apache-2.0
//
// Pages of servers that listen, that do not, and that do not answer.
#include "client/bench/http_page.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include <string>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "gtest/gtest.h"
#include "server/base/descriptor.h"

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
  }

  bool is_there() const { return is_there_; }
  void Listen() { ASSERT_EQ(listen(socket_.get(), 4), 0); }
  // HOST:PORT.
  std::string address() const {
    const int port = ntohs(reinterpret_cast<const sockaddr_in*>(&address_)->sin_port);
    return absl::StrCat(address_.ss_family == AF_INET ? "127.0.0.1" : "[::1]", ":", port);
  }

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
  bool is_there_ = false;
};

// What a server at `port` answers with.
absl::StatusOr<std::string> PageOf(LocalPort& port, const std::string& answer,
                                   std::string* request = nullptr) {
  port.Listen();
  std::string asked;
  std::thread server([&] { asked = port.Serve(answer); });
  auto page = ReadHttpPage(port.address(), "/metrics", absl::Seconds(20));
  server.join();
  if (request != nullptr) *request = asked;
  return page;
}

// The reason of a failure.
std::string Why(const LocalPort& port, const absl::StatusOr<std::string>& page) {
  EXPECT_EQ(page.status().code(), absl::StatusCode::kUnavailable);
  absl::string_view why = page.status().message();
  EXPECT_TRUE(
      absl::ConsumePrefix(&why, absl::StrCat("no page http://", port.address(), "/metrics: ")))
      << page.status();
  return std::string(why);
}

TEST(HttpPageTest, AsksForThePageAndReadsToTheEnd) {
  LocalPort port;
  const std::string page(100'000, 'x');
  std::string request;
  const auto answer = PageOf(port, "HTTP/1.1 200 OK\r\n\r\n" + page, &request);
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(*answer, page);
  EXPECT_TRUE(absl::StartsWith(
      request, absl::StrCat("GET /metrics HTTP/1.1\r\nHost: ", port.address(), "\r\n")))
      << request;
}

TEST(HttpPageTest, TakesAnIpv6AddressInBrackets) {
  LocalPort port(AF_INET6);
  if (!port.is_there()) GTEST_SKIP() << "this machine has no IPv6";
  EXPECT_EQ(PageOf(port, "HTTP/1.1 200 OK\r\n\r\npage").value_or(""), "page");
}

TEST(HttpPageTest, SaysWhyThereIsNone) {
  LocalPort port;
  EXPECT_EQ(Why(port, ReadHttpPage(port.address(), "/metrics", absl::Seconds(20))),
            "no connection: Connection refused");
  // The kernel takes the connection, and nobody answers.
  port.Listen();
  EXPECT_EQ(Why(port, ReadHttpPage(port.address(), "/metrics", absl::Milliseconds(50))),
            "no whole answer within 50ms");
}

TEST(HttpPageTest, SaysWhatIsWrongWithAnAnswer) {
  LocalPort missing, large, cut;
  EXPECT_EQ(Why(missing, PageOf(missing, "HTTP/1.1 404 Not Found\r\n\r\npage")),
            "the server answers with status 404");
  EXPECT_EQ(Why(cut, PageOf(cut, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npage")),
            "Transferred a partial file");
  const std::string too_much((size_t{64} << 20) + 1, 'x');
  EXPECT_EQ(Why(large, PageOf(large, "HTTP/1.1 200 OK\r\n\r\n" + too_much)),
            "the answer has more than 67108864 bytes");
}

TEST(HttpPageTest, AnAddressIsHostAndPort) {
  EXPECT_EQ(ReadHttpPage("nowhere", "/metrics", absl::Seconds(20)).status(),
            absl::UnavailableError("no page http://nowhere/metrics: the address is not HOST:PORT"));
}

}  // namespace
}  // namespace swiglu::bench
