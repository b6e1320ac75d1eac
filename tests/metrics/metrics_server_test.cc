// SPDX-License-Identifier: Apache-2.0
//
// The page over real sockets, and the sentences when there can be none.
#include "server/metrics/metrics_server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "server/metrics/metrics_page.h"

namespace swiglu::server {
namespace {

constexpr char kRequest[] = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";

// A connected socket; get() is -1 when nobody answers.
Descriptor Connect(int port, int family = AF_INET) {
  Descriptor socket(::socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in v4{};
  v4.sin_family = AF_INET;
  v4.sin_port = htons(static_cast<uint16_t>(port));
  v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  sockaddr_in6 v6{};
  v6.sin6_family = AF_INET6;
  v6.sin6_port = htons(static_cast<uint16_t>(port));
  v6.sin6_addr = in6addr_loopback;
  const int connected =
      family == AF_INET
          ? ::connect(socket.get(), reinterpret_cast<const sockaddr*>(&v4), sizeof(v4))
          : ::connect(socket.get(), reinterpret_cast<const sockaddr*>(&v6), sizeof(v6));
  return connected == 0 ? std::move(socket) : Descriptor();
}

void Send(const Descriptor& socket, absl::string_view text) {
  EXPECT_EQ(::send(socket.get(), text.data(), text.size(), MSG_NOSIGNAL),
            static_cast<ssize_t>(text.size()));
}

// Everything until the other side closes; "reset" behind it when that was no proper end.
std::string ReceiveAll(const Descriptor& socket) {
  std::string received;
  char buffer[65536];
  ssize_t count = 0;
  while ((count = ::recv(socket.get(), buffer, sizeof(buffer), 0)) > 0) {
    received.append(buffer, static_cast<size_t>(count));
  }
  return count == 0 ? received : received + "reset";
}

std::string Get(int port, int family = AF_INET) {
  const Descriptor socket = Connect(port, family);
  if (socket.get() < 0) return "not connected";
  Send(socket, kRequest);
  return ReceiveAll(socket);
}

std::unique_ptr<MetricsServer> Start(const std::string& address, Page page) {
  absl::StatusOr<std::unique_ptr<MetricsServer>> server =
      MetricsServer::Create(address, std::move(page));
  EXPECT_TRUE(server.ok()) << server.status();
  return server.ok() ? *std::move(server) : nullptr;
}

std::string ErrorOf(const std::string& address) {
  const absl::StatusOr<std::unique_ptr<MetricsServer>> server =
      MetricsServer::Create(address, [] { return std::string(); });
  return server.ok() ? "no error" : server.status().ToString();
}

bool HasIpv6Loopback() {
  const Descriptor socket(::socket(AF_INET6, SOCK_STREAM, 0));
  sockaddr_in6 name{};
  name.sin6_family = AF_INET6;
  name.sin6_addr = in6addr_loopback;
  return ::bind(socket.get(), reinterpret_cast<const sockaddr*>(&name), sizeof(name)) == 0;
}

TEST(MetricsServerTest, ServesTheRealPage) {
  PrometheusObserver observer;
  const MetricsPage page(&observer, {}, {"1.2.3", "abc", "none"});
  const auto server = Start("127.0.0.1:0", [&] { return page.Render(); });
  observer.RequestRejected(Rejection::kBudget);
  const std::string answer = Get(server->port());
  EXPECT_TRUE(absl::StartsWith(answer, "HTTP/1.1 200 OK\r\n")) << answer;
  EXPECT_TRUE(absl::StrContains(answer, "\nswiglu_rejected_total{reason=\"budget\"} 1\n"));
  EXPECT_TRUE(absl::StrContains(answer, "\nswiglu_build_info{version=\"1.2.3\","));
}

TEST(MetricsServerTest, EveryReadingIsFresh) {
  std::atomic<int> count{0};
  const auto server = Start("127.0.0.1:0", [&] { return absl::StrCat("n ", ++count, "\n"); });
  EXPECT_TRUE(absl::EndsWith(Get(server->port()), "\r\n\r\nn 1\n"));
  EXPECT_TRUE(absl::EndsWith(Get(server->port()), "\r\n\r\nn 2\n"));
}

TEST(MetricsServerTest, ListensOnNames) {
  const auto server = Start("localhost:0", [] { return std::string("x 1\n"); });
  EXPECT_GT(server->port(), 0);
  EXPECT_TRUE(absl::EndsWith(Get(server->port()), "\r\n\r\nx 1\n"));
}

TEST(MetricsServerTest, ListensOnIpv6) {
  if (!HasIpv6Loopback()) GTEST_SKIP() << "this machine has no IPv6 loopback";
  const auto server = Start("[::1]:0", [] { return std::string("x 1\n"); });
  EXPECT_TRUE(absl::EndsWith(Get(server->port(), AF_INET6), "\r\n\r\nx 1\n"));
}

TEST(MetricsServerTest, AllAddressesOfIpv6TakeIpv4Too) {
  if (!HasIpv6Loopback()) GTEST_SKIP() << "this machine has no IPv6 loopback";
  const auto server = Start("[::]:0", [] { return std::string("x 1\n"); });
  EXPECT_TRUE(absl::EndsWith(Get(server->port(), AF_INET6), "\r\n\r\nx 1\n"));
  EXPECT_TRUE(absl::EndsWith(Get(server->port(), AF_INET), "\r\n\r\nx 1\n"));
}

TEST(MetricsServerTest, RequestMayComeInPieces) {
  const auto server = Start("127.0.0.1:0", [] { return std::string("x 1\n"); });
  const Descriptor socket = Connect(server->port());
  Send(socket, "GET /metr");
  EXPECT_TRUE(absl::EndsWith(Get(server->port()), "x 1\n"));  // others do not wait for it
  Send(socket, "ics HTTP/1.1\r\n\r\n");
  EXPECT_TRUE(absl::EndsWith(ReceiveAll(socket), "x 1\n"));
}

TEST(MetricsServerTest, PageLargerThanTheSocketBuffersArrivesWhole) {
  const std::string page(32 << 20, 'x');
  const auto server = Start("127.0.0.1:0", [&] { return page; });
  const Descriptor slow = Connect(server->port());
  Send(slow, kRequest);
  const std::string answer = Get(server->port());
  EXPECT_EQ(answer.size() - answer.find("\r\n\r\n") - 4, page.size());
  const std::string slow_answer = ReceiveAll(slow);
  EXPECT_EQ(slow_answer.size() - slow_answer.find("\r\n\r\n") - 4, page.size());
}

TEST(MetricsServerTest, RequestWithABodyIsAnsweredAndClosedInOrder) {
  const auto server = Start("127.0.0.1:0", [] { return std::string("x 1\n"); });
  const Descriptor socket = Connect(server->port());
  Send(socket,
       "POST /metrics HTTP/1.1\r\nContent-Length: 100000\r\n\r\n" + std::string(100'000, 'x'));
  // A reset, because bytes were left unread, could overtake the answer.
  const std::string answer = ReceiveAll(socket);
  EXPECT_TRUE(absl::StartsWith(answer, "HTTP/1.1 405 ")) << answer;
  EXPECT_TRUE(absl::EndsWith(answer, "\r\n\r\n405 Method Not Allowed\n")) << answer;
}

TEST(MetricsServerTest, IdleConnectionsDoNotKeepOthersOut) {
  const auto server = Start("127.0.0.1:0", [] { return std::string("x 1\n"); });
  std::vector<Descriptor> idle;
  for (int i = 0; i < 40; ++i) idle.push_back(Connect(server->port()));
  EXPECT_TRUE(absl::EndsWith(Get(server->port()), "x 1\n"));
  // The oldest was closed for it.
  EXPECT_EQ(ReceiveAll(idle[0]), "");
}

TEST(MetricsServerTest, ClientThatLeavesEarlyHarmsNobody) {
  const std::string page(8 << 20, 'x');
  const auto server = Start("127.0.0.1:0", [&] { return page; });
  for (int i = 0; i < 4; ++i) Send(Connect(server->port()), kRequest);
  EXPECT_GT(Get(server->port()).size(), page.size());
}

TEST(MetricsServerTest, EndsWithConnectionsOpenAndFreesThePort) {
  auto server = Start("127.0.0.1:0", [] { return std::string(); });
  const int port = server->port();
  const Descriptor idle = Connect(port);
  server.reset();
  EXPECT_EQ(Connect(port).get(), -1);
  EXPECT_EQ(ErrorOf(absl::StrCat("127.0.0.1:", port)), "no error");
}

TEST(MetricsServerTest, PortInUseIsOneClearSentence) {
  const auto server = Start("127.0.0.1:0", [] { return std::string(); });
  const std::string address = absl::StrCat("127.0.0.1:", server->port());
  EXPECT_EQ(ErrorOf(address), absl::StrCat("FAILED_PRECONDITION: cannot listen on ", address,
                                           ": Address already in use"));
  const std::string name = absl::StrCat("localhost:", server->port());
  EXPECT_EQ(ErrorOf(name), absl::StrCat("FAILED_PRECONDITION: cannot listen on ", name,
                                        ": Address already in use"));
}

TEST(MetricsServerTest, AddressOfAnotherMachineIsAnError) {
  EXPECT_EQ(ErrorOf("192.0.2.1:0"),
            "FAILED_PRECONDITION: cannot listen on 192.0.2.1:0: Cannot assign requested address");
}

TEST(MetricsServerTest, MalformedAddressIsAnError) {
  for (const std::string address :
       {"", "8002", ":8002", "localhost", "localhost:", "localhost:x", "localhost:65536",
        "localhost:-1", "::1:8002", "[::1]", "[]:1"}) {
    EXPECT_EQ(ErrorOf(address), absl::StrCat("INVALID_ARGUMENT: '", address,
                                             "' is not an address: HOST:PORT is needed"));
  }
}

}  // namespace
}  // namespace swiglu::server
