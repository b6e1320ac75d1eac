// SPDX-License-Identifier: Apache-2.0
//
// The page over real sockets, and the sentences when there can be none.
#include "server/metrics/metrics_server.h"

#include <netinet/in.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <iterator>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "server/metrics/metrics_page.h"

namespace swiglu::server {
namespace {

constexpr char kRequest[] = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";

// Connects `socket`; false when nobody answers.
bool ConnectTo(const Descriptor& socket, int port, int family = AF_INET) {
  // A server that does not close when it should is a "reset" in the test, and not a hang.
  const timeval limit{20, 0};
  ::setsockopt(socket.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
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
  return connected == 0;
}

// A connected socket; get() is -1 when nobody answers.
Descriptor Connect(int port, int family = AF_INET) {
  Descriptor socket(::socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  return ConnectTo(socket, port, family) ? std::move(socket) : Descriptor();
}

void Send(const Descriptor& socket, absl::string_view text) {
  EXPECT_EQ(::send(socket.get(), text.data(), text.size(), MSG_NOSIGNAL),
            static_cast<ssize_t>(text.size()));
}

// Everything until the other side closes; "reset" behind it when that was no proper end, or none
// within 20 seconds.
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

std::unique_ptr<MetricsServer> Start(const std::string& address, Page page,
                                     const MetricsLimits& limits = {}) {
  absl::StatusOr<std::unique_ptr<MetricsServer>> server =
      MetricsServer::Create(address, std::move(page), limits);
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
  PrometheusObserver observer{ModelRegistry()};
  const MetricsPage page(&observer, {}, {"1.2.3", "abc", "none"});
  const auto server = Start("127.0.0.1:0", [&] { return page.Render(); });
  RequestRecord record;
  record.rejection = Rejection::kBudget;
  observer.RequestFinished(record);
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

TEST(MetricsServerTest, AnsweredClientThatGoesOnSendingHearsOfNoReset) {
  const auto server = Start("127.0.0.1:0", [] { return std::string("x 1\n"); });
  const Descriptor socket = Connect(server->port());
  Send(socket, kRequest);
  ReceiveAll(socket);
  Send(socket, "more");
  // The server's only thread has been there.
  Get(server->port());
  int error = -1;
  socklen_t size = sizeof(error);
  ASSERT_EQ(::getsockopt(socket.get(), SOL_SOCKET, SO_ERROR, &error, &size), 0);
  EXPECT_EQ(error, 0);
}

// Whether the other side has closed, or sent something.
bool HasNews(const Descriptor& socket) {
  pollfd fd{socket.get(), POLLIN, 0};
  return ::poll(&fd, 1, 0) != 0;
}

std::string XPage() { return "x 1\n"; }

TEST(MetricsServerTest, OldestConnectionMakesRoomForANewOne) {
  // None ends by its time.
  const auto server = Start("127.0.0.1:0", XPage, {16, std::chrono::hours(1)});
  std::vector<Descriptor> idle;
  for (int i = 0; i < 40; ++i) idle.push_back(Connect(server->port()));
  EXPECT_TRUE(absl::EndsWith(Get(server->port()), "x 1\n"));
  // With the one that was answered, the last fifteen are the sixteen that may be.
  for (int i = 0; i < 25; ++i) EXPECT_EQ(ReceiveAll(idle[i]), "") << i;
  for (int i = 25; i < 40; ++i) EXPECT_FALSE(HasNews(idle[i])) << i;
}

TEST(MetricsServerTest, ConnectionEndsAtItsTimeWhateverItDoes) {
  const std::string page(32 << 20, 'x');
  const auto server =
      Start("127.0.0.1:0", [&] { return page; }, {16, std::chrono::milliseconds(200)});
  const Descriptor silent = Connect(server->port());
  const Descriptor halfway = Connect(server->port());
  Send(halfway, "GET /metrics HTTP/1.1\r\n");
  const Descriptor untaken = Connect(server->port());
  Send(untaken, kRequest);
  EXPECT_EQ(ReceiveAll(silent), "");
  EXPECT_EQ(ReceiveAll(halfway), "");
  // It was the last to come, so that a later one's end shows that it has had its time.
  EXPECT_EQ(ReceiveAll(Connect(server->port())), "");
  EXPECT_LT(ReceiveAll(untaken).size(), page.size());
}

TEST(MetricsServerTest, ClientThatEndsInTheMiddleOfItsRequestIsClosedAtOnce) {
  const auto server = Start("127.0.0.1:0", XPage, {16, std::chrono::hours(1)});
  const Descriptor socket = Connect(server->port());
  Send(socket, "GET /metrics");
  ::shutdown(socket.get(), SHUT_WR);
  EXPECT_EQ(ReceiveAll(socket), "");
}

// The descriptors of this process, which hosts the server's side of a connection, too.
int64_t NumOpen() {
  return std::distance(std::filesystem::directory_iterator("/proc/self/fd"), {});
}

// Whether there are no more than that, within 20 seconds.
bool FallsTo(int64_t num_open) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (NumOpen() > num_open && std::chrono::steady_clock::now() < end) {
  }
  return NumOpen() <= num_open;
}

TEST(MetricsServerTest, AnsweredConnectionIsClosedOnceTheClientHasClosedIt) {
  const auto server = Start("127.0.0.1:0", XPage, {16, std::chrono::hours(1)});
  const int64_t num_open = NumOpen();
  EXPECT_TRUE(absl::EndsWith(Get(server->port()), "x 1\n"));
  EXPECT_TRUE(FallsTo(num_open));
}

TEST(MetricsServerTest, AnsweredConnectionThatStaysOpenEndsAtItsTime) {
  const auto server = Start("127.0.0.1:0", XPage, {16, std::chrono::milliseconds(200)});
  const int64_t num_open = NumOpen();
  const Descriptor lingering = Connect(server->port());
  Send(lingering, kRequest);
  EXPECT_TRUE(absl::EndsWith(ReceiveAll(lingering), "x 1\n"));
  EXPECT_TRUE(FallsTo(num_open + 1));
}

// The processor's time that this process takes while the test waits for half a second.
int64_t CpuMsOfAWait() {
  const auto cpu_ms = [] {
    timespec time{};
    ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return int64_t{time.tv_sec} * 1000 + time.tv_nsec / 1'000'000;
  };
  const int64_t before_ms = cpu_ms();
  ::poll(nullptr, 0, 500);
  return cpu_ms() - before_ms;
}

// A loop that does not wait would take most of a wait.
constexpr int64_t kFewMs = 100;

TEST(MetricsServerTest, WaitsWithoutTakingTime) {
  const auto server = Start("127.0.0.1:0", XPage);
  EXPECT_LT(CpuMsOfAWait(), kFewMs);
  const Descriptor idle = Connect(server->port());
  EXPECT_TRUE(absl::EndsWith(Get(server->port()), "x 1\n"));
  EXPECT_LT(CpuMsOfAWait(), kFewMs);
  EXPECT_FALSE(HasNews(idle));
}

TEST(MetricsServerTest, AcceptsAgainWhenThereAreDescriptors) {
#if defined(__has_feature)
#if __has_feature(undefined_behavior_sanitizer)
  GTEST_SKIP() << "the sanitizer needs descriptors for its own checks";
#endif
#endif
  const auto server = Start("127.0.0.1:0", XPage);
  const Descriptor before = Connect(server->port());
  EXPECT_TRUE(absl::EndsWith(Get(server->port()), "x 1\n"));
  Descriptor socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  rlimit limit{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &limit), 0);
  // Every descriptor below the limit is taken.
  rlimit low = limit;
  low.rlim_cur = 64;
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &low), 0);
  std::vector<Descriptor> taken;
  for (int fd = 0; (fd = ::dup(0)) >= 0;) taken.emplace_back(fd);
  ConnectTo(socket, server->port());
  Send(socket, kRequest);
  const int64_t waiting_ms = CpuMsOfAWait();
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &limit), 0);
  EXPECT_LT(waiting_ms, kFewMs);
  EXPECT_TRUE(absl::EndsWith(ReceiveAll(socket), "x 1\n"));
  EXPECT_TRUE(absl::EndsWith(Get(server->port()), "x 1\n"));
}

TEST(MetricsServerTest, PageForWhichThereIsNoMemoryClosesConnectionsAndServesOn) {
  std::atomic<bool> is_short{true};
  const auto server = Start("127.0.0.1:0", [&] {
    if (is_short) throw std::bad_alloc();
    return XPage();
  });
  EXPECT_TRUE(absl::StartsWith(Get(server->port()), "HTTP/1.1 500 "));
  is_short = false;
  EXPECT_TRUE(absl::EndsWith(Get(server->port()), "x 1\n"));
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
