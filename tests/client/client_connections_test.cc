// SPDX-License-Identifier: Apache-2.0
//
// The library's connections: addresses, many callers, peers that are gone or take nothing.
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "client/retry.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "swiglu/client.h"
#include "tests/client/bytes.h"
#include "tests/client/client_fixture.h"
#include "tests/client/fake_server.h"
#include "tests/client/silent_peer.h"

namespace swiglu::client {
namespace {

using ::testing::EndsWith;
using ::testing::StartsWith;

TEST_F(ClientTest, ManyThreadsShareAClient) {
  FakeServer server([](const FakeCall& call) { return EchoInfer(call); });
  const auto client = Connect(server.address());
  std::atomic<int> num_right = 0;
  std::vector<std::thread> threads;
  for (uint32_t t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] {
      for (uint32_t k = 0; k < 20; ++k) {
        const std::string e = Pattern(2000 + 2 * k, 100 * t + k);
        const Shape shape = {static_cast<int64_t>(e.size() / 2)};
        const auto h = client->Forward(View(e, shape), View(e, shape));
        if (h.ok() && AsText(h->bytes()) == e) ++num_right;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(num_right, 160);
}

// What a clock of processor time shows.
absl::Duration Shown(clockid_t clock) {
  timespec time = {};
  clock_gettime(clock, &time);
  return absl::DurationFromTimespec(time);
}

// The answer comes when the caller has used some processor time. A caller that sleeps uses none.
TEST_F(ClientTest, ACallThatSpinsDoesNotSleep) {
  clockid_t clock = 0;
  ASSERT_EQ(pthread_getcpuclockid(pthread_self(), &clock), 0);
  FakeServer server([&](const FakeCall& call) {
    const absl::Duration enough = Shown(clock) + absl::Milliseconds(20);
    while (Shown(clock) < enough && absl::Now() < call.deadline) std::this_thread::yield();
    return EchoInfer(call);
  });
  const auto client = Connect(server.address(), {.timeout = absl::Seconds(20), .spin = true});
  EXPECT_TRUE(client->Forward(View(e_, shape_), View(g_, shape_)).ok());
}

// A call that a server gets and does not answer, on a thread of its own. The server must end first.
class OpenCall {
 public:
  // Returns when the server has it, as `num_arrived` tells.
  OpenCall(Client& client, const TensorView& tensor, std::atomic<int>& num_arrived) {
    const int before = num_arrived.load();
    thread_ = std::thread([&client, tensor] { EXPECT_FALSE(client.Forward(tensor, tensor).ok()); });
    num_arrived.wait(before);
  }
  ~OpenCall() { thread_.join(); }

 private:
  std::thread thread_;
};

TEST_F(ClientTest, ACallTakesTheConnectionWithTheFewestBytes) {
  std::vector<std::string> peers;
  std::atomic<int> num_arrived = 0;
  auto server = std::make_unique<FakeServer>([&](const FakeCall& call) {
    peers.push_back(call.peer);
    ++num_arrived;
    num_arrived.notify_all();
    FakeReply reply;
    reply.never = true;
    return reply;
  });
  const std::string large = Pattern(100'000, 1);
  const auto client = Connect(server->address(), {.num_connections = 3});
  const OpenCall first(*client, View(large, {50'000}), num_arrived);
  const OpenCall second(*client, View(large, {50'000}), num_arrived);
  const OpenCall third(*client, View(e_, shape_), num_arrived);
  const OpenCall fourth(*client, View(e_, shape_), num_arrived);
  EXPECT_EQ(std::set<std::string>(peers.begin(), peers.end()).size(), 3u);
  EXPECT_EQ(peers[3], peers[2]);
  server.reset();
}

TEST_F(ClientTest, CallsAfterEachOtherNeedOneConnection) {
  std::set<std::string> peers;
  FakeServer server([&](const FakeCall& call) {
    peers.insert(call.peer);
    return EchoInfer(call);
  });
  const auto client = Connect(server.address(), {.num_connections = 4});
  for (int k = 0; k < 3; ++k) {
    EXPECT_TRUE(client->Forward(View(e_, shape_), View(g_, shape_)).ok());
  }
  EXPECT_EQ(peers.size(), 1u);
}

// A peer that takes no bytes any more loses the connection, and with it the caller's memory that is
// lent to it: the kernel sees to that, if it is told to.
TEST_F(ClientTest, TheKernelGivesUpOnAPeerThatTakesNothing) {
  FakeServer server([](const FakeCall& call) { return EchoInfer(call); });
  const auto client = Connect(server.address());
  ASSERT_TRUE(client->Forward(View(e_, shape_), View(g_, shape_)).ok());
  int num_found = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    const int fd = std::stoi(entry.path().filename());
    sockaddr_in peer = {};
    socklen_t size = sizeof(peer);
    if (getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &size) != 0) continue;
    if (!absl::EndsWith(server.address(), absl::StrCat(":", ntohs(peer.sin_port)))) continue;
    unsigned timeout_ms = 0;
    size = sizeof(timeout_ms);
    ASSERT_EQ(getsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout_ms, &size), 0);
    EXPECT_EQ(timeout_ms, 20'000u);
    ++num_found;
  }
  EXPECT_EQ(num_found, 1);
}

// gRPC fails a call that begins while a connection ends, and the library sends it again.
TEST_F(ClientTest, AConnectionThatTheServerEndsForItsAgeCostsNoCall) {
  std::set<std::string> peers;
  absl::Mutex mutex;
  FakeServer server(
      [&](const FakeCall& call) {
        absl::MutexLock lock(&mutex);
        peers.insert(call.peer);
        return EchoInfer(call);
      },
      "127.0.0.1:0", {.max_connection_age = absl::Milliseconds(20)});
  const auto client = Connect(server.address(), {.num_connections = 2});
  const auto num_peers = [&] {
    absl::MutexLock lock(&mutex);
    return peers.size();
  };
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      while (num_peers() < 20) {
        EXPECT_EQ(client->Forward(View(e_, shape_), View(g_, shape_)).status(), absl::OkStatus());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST_F(ClientTest, FindsAServerThatComesBack) {
  auto server = std::make_unique<FakeServer>([](const FakeCall& call) { return EchoInfer(call); });
  const std::string address = server->address();
  const auto client = Connect(address, {.num_connections = 1});
  ASSERT_TRUE(client->Forward(View(e_, shape_), View(g_, shape_)).ok());
  server.reset();
  EXPECT_EQ(client->Forward(View(e_, shape_), View(g_, shape_)).status().code(),
            absl::StatusCode::kUnavailable);
  server =
      std::make_unique<FakeServer>([](const FakeCall& call) { return EchoInfer(call); }, address);
  // It tries again within a second; gRPC's own first pause is one, and grows to two minutes.
  absl::Status status = absl::UnavailableError("");
  const absl::Time deadline = absl::Now() + absl::Seconds(20);
  while (absl::IsUnavailable(status) && absl::Now() < deadline) {
    status = client->Forward(View(e_, shape_), View(g_, shape_)).status();
  }
  EXPECT_EQ(status, absl::OkStatus());
}

// The kernel cannot send what is not there.
TEST_F(ClientTest, DoesNotBlameTheNetworkForMemoryThatCannotBeRead) {
  FakeServer server([](const FakeCall& call) { return EchoInfer(call); });
  constexpr size_t kBytes = 1 << 20;
  void* const memory = mmap(nullptr, kBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(memory, MAP_FAILED);
  const TensorView tensor{
      Dtype::kFp16, {kBytes / 2}, {static_cast<const std::byte*>(memory), kBytes}};
  EXPECT_EQ(Connect(server.address())->Forward(tensor, tensor).status(),
            absl::UnavailableError(
                absl::StrCat("the connection to ", server.address(),
                             " broke: an input's memory cannot be read; was its file cut short?")));
  munmap(memory, kBytes);
}

TEST_F(ClientTest, NamesTheAddressOfAServerThatIsNotThere) {
  const Port port;
  const absl::Status status =
      Connect(port.address())->Forward(View(e_, shape_), View(g_, shape_)).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()),
              StartsWith(absl::StrCat("no connection to ", port.address(), ": ")));
}

// More calls than the budget has retries. Each is sent again all the same.
TEST_F(ClientTest, CallsOfAnOutageDoNotUseUpTheRetries) {
  const Port port;
  const auto client =
      Connect(port.address(), {.num_connections = 1, .max_attempts = 2, .coalesce_bytes = 0});
  const auto call = [&] { return client->ForwardAsync(View(e_, shape_), View(g_, shape_)); };
  EXPECT_FALSE(call().Get().ok());  // finds out that nobody listens
  std::vector<Future<absl::StatusOr<Tensor>>> futures;
  for (int i = 0; i < 2 * RetryBudget::kMostRetries; ++i) futures.push_back(call());
  for (auto& future : futures) {
    const absl::Status status = future.Get().status();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
    EXPECT_THAT(std::string(status.message()), EndsWith(" (tried 2 times)"));
  }
}

TEST_F(ClientTest, NamesAMissingSocket) {
  const absl::Status status = Connect("unix:/nonexistent/socket")->ServerReady().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()),
              StartsWith("no connection to unix:/nonexistent/socket: "));
}

TEST_F(ClientTest, IgnoresTheEnvironmentsProxy) {
  setenv("http_proxy", "http://127.0.0.1:1", 1);
  FakeServer server([](const FakeCall& call) { return EchoInfer(call); });
  EXPECT_TRUE(Connect(server.address())->Forward(View(e_, shape_), View(g_, shape_)).ok());
  unsetenv("http_proxy");
}

// The call's deadline passes in the middle of a message. The call must not return before gRPC has
// let go of it.
TEST_F(ClientTest, InsecureConnectionsArePlainText) {
  const Port port;
  const timeval patience = {.tv_sec = 20, .tv_usec = 0};
  ASSERT_EQ(setsockopt(port.fd(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)), 0);
  ASSERT_EQ(listen(port.fd(), 1), 0);
  const auto client = Connect(port.address(), {.credentials = Credentials::Insecure()});
  const auto call = client->ForwardAsync(View(e_, shape_), View(g_, shape_));
  const int fd = accept(port.fd(), nullptr, nullptr);
  ASSERT_GE(fd, 0);
  std::string preface(16, '\0');
  EXPECT_EQ(recv(fd, preface.data(), preface.size(), MSG_WAITALL), 16);
  EXPECT_EQ(preface, "PRI * HTTP/2.0\r\n");
  close(fd);
}

TEST_F(ClientTest, DoesNotReturnWhileItsMemoryIsInUse) {
  // On a busy machine the deadline may pass before the message begins to go, or the peer may hang
  // up before the deadline: then more time is due.
  std::string e(size_t{64} << 20, 'e');
  const Shape shape = {int64_t{32} << 20};
  for (absl::Duration timeout = absl::Milliseconds(300);; timeout *= 2) {
    ASSERT_LT(timeout, absl::Seconds(20)) << "no message ever begins to go";
    SilentPeer peer;
    absl::Notification returned;
    absl::Status status;
    std::thread caller([&] {
      const auto client = Connect(peer.address(), {.timeout = timeout});
      status = client->Forward(View(e, shape), View(e, shape)).status();
      returned.Notify();
      std::fill(e.begin(), e.end(), '\0');
    });
    const bool early = returned.WaitForNotificationWithTimeout(3 * timeout);
    const bool in_the_middle = peer.HangUp();
    caller.join();
    if (!in_the_middle || status.code() == absl::StatusCode::kUnavailable) continue;
    EXPECT_FALSE(early);
    EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
    return;
  }
}

TEST(ClientCreateTest, TakesHostAndPortOrASocket) {
  for (const char* address : {"127.0.0.1:8001", "localhost:1", "[::1]:65535", "unix:/run/x",
                              "dns:///a.b:80", "dns:///x:1,x:1"}) {
    EXPECT_TRUE(Client::Create(address).ok()) << address;
  }
}

TEST(ClientCreateTest, RefusesOtherAddresses) {
  for (const char* address : {"",
                              "localhost",
                              ":8001",
                              "localhost:",
                              "localhost:0",
                              "localhost:65536",
                              "localhost:http",
                              "::1:80",
                              "http://x:80",
                              "unix:",
                              "dns:x:80",
                              "dns://x:80",
                              "dns://n/x:80",
                              "dns:///x",
                              "dns:///:80",
                              "dns:///x:0",
                              "dns:///a/b:80",
                              " a:1",
                              "a:1 ",
                              "a: 1",
                              "a:+1",
                              "a:1, b:1"}) {
    EXPECT_EQ(Client::Create(address).status().code(), absl::StatusCode::kInvalidArgument)
        << address;
  }
  EXPECT_EQ(Client::Create("localhost").status().message(),
            "bad server address 'localhost': the port is missing; it takes HOST:PORT, "
            "dns:///NAME:PORT or unix:/path");
}

TEST(ClientCreateTest, RefusesOptionsOutOfRange) {
  const auto message = [](const Options& options) {
    return std::string(Client::Create("localhost:1", options).status().message());
  };
  EXPECT_EQ(message({.timeout = -absl::Seconds(1)}), "option timeout is -1s; it takes 0 or more");
  EXPECT_EQ(message({.hedge_delay = -absl::Seconds(1)}),
            "option hedge_delay is -1s; it takes 0 or more");
  EXPECT_EQ(message({.num_connections = 65}), "option num_connections is 65; it takes 0 to 64");
  EXPECT_EQ(message({.num_connections = -1}), "option num_connections is -1; it takes 0 to 64");
  EXPECT_EQ(message({.max_message_bytes = int64_t{1} << 31}),
            "option max_message_bytes is 2147483648; it takes 4096 to 2147483647");
  EXPECT_EQ(message({.chunk_bytes = 4095}),
            "option chunk_bytes is 4095; it takes 4096 to 2147483647");
  EXPECT_TRUE(Client::Create("localhost:1", {.num_connections = 64,
                                             .max_message_bytes = 4096,
                                             .chunk_bytes = (int64_t{1} << 31) - 1})
                  .ok());
  EXPECT_EQ(message({.max_message_bytes = 4095}),
            "option max_message_bytes is 4095; it takes 4096 to 2147483647");
  EXPECT_EQ(message({.chunk_bytes = int64_t{1} << 31}),
            "option chunk_bytes is 2147483648; it takes 4096 to 2147483647");
}

}  // namespace
}  // namespace swiglu::client
