// SPDX-License-Identifier: Apache-2.0
//
// The connections below gRPC: their names, what comes over them, their number and their end.
#include "server/connections/connections.h"

#include <linux/sockios.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "grpcpp/server.h"
#include "grpcpp/server_builder.h"
#include "gtest/gtest.h"
#include "server/base/listen_socket.h"
#include "server/connections/acceptor.h"
#include "server/transport/flood_watch.h"
#include "server/transport/message_watch.h"
#include "tests/rpc/server_fixture.h"

namespace swiglu::server {
namespace {

using ::testing::HasSubstr;

// Says how gRPC names the peer of its last call.
class PeerService final : public grpc::health::v1::Health::Service {
 public:
  grpc::Status Check(grpc::ServerContext* context, const grpc::health::v1::HealthCheckRequest*,
                     grpc::health::v1::HealthCheckResponse*) override {
    peer = context->peer();
    return grpc::Status::OK;
  }
  std::string peer;
};

// A gRPC server that gets its connections from an acceptor, which tells `connections` of them.
class AcceptingServer {
 public:
  explicit AcceptingServer(const std::string& address) {
    auto listening = Acceptor::Listen({.address = address});
    EXPECT_TRUE(listening.ok()) << listening.status();
    acceptor = *std::move(listening);
    grpc::ServerBuilder builder;
    auto handover = builder.experimental().AddExternalConnectionAcceptor(
        grpc::ServerBuilder::experimental_type::ExternalConnectionType::FROM_FD,
        grpc::InsecureServerCredentials());
    builder.RegisterService(&service);
    server_ = builder.BuildAndStart();
    handover_ = std::move(handover);
    acceptor->Start(
        {.num_open = [this] { return connections.NumOpen(); },
         .refused = [] {},
         .take =
             [this](int fd) {
               connections.Add(fd);
               grpc::experimental::ExternalConnectionAcceptor::NewConnectionParameters connection;
               connection.fd = fd;
               handover_->HandleNewConnection(&connection);
             },
         .accepting_changed = [](bool) {}});
  }
  ~AcceptingServer() {
    acceptor->Stop();
    server_->Shutdown();
  }

  // A call over a connection of its own to `target`; how gRPC names the peer.
  std::string PeerOfCall(const std::string& target) {
    channel_ = grpc::CreateChannel(target, grpc::InsecureChannelCredentials());
    auto stub = grpc::health::v1::Health::NewStub(channel_);
    PatientContext context;
    grpc::health::v1::HealthCheckResponse response;
    const grpc::Status status = stub->Check(&context, {}, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return service.peer;
  }

  Connections connections;
  PeerService service;
  std::unique_ptr<Acceptor> acceptor;

 private:
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<grpc::experimental::ExternalConnectionAcceptor> handover_;
  std::shared_ptr<grpc::Channel> channel_;  // open until the next call
};

int PortOf(const std::string& address) { return std::stoi(address.substr(address.rfind(':') + 1)); }

bool HasIpv6() { return ListenTcp("[::1]:0").ok(); }

TEST(ConnectionsTest, NamesIpv4PeersAsGrpcDoes) {
  AcceptingServer ipv4("127.0.0.1:0");
  const std::string peer = ipv4.PeerOfCall(ipv4.acceptor->address());
  EXPECT_THAT(peer, HasSubstr("ipv4:127.0.0.1:"));
  EXPECT_GT(ipv4.connections.ReceivedBytes(peer), 0u);
  EXPECT_EQ(ipv4.connections.Describe(peer), peer);
  EXPECT_EQ(ipv4.connections.Describe("ipv6:%5B::1%5D:7"), "ipv6:[::1]:7");
}

TEST(ConnectionsTest, NamesIpv6PeersAsGrpcDoes) {
  if (!HasIpv6()) GTEST_SKIP() << "no IPv6 here";
  AcceptingServer ipv6("[::1]:0");
  const std::string peer_ipv6 = ipv6.PeerOfCall(ipv6.acceptor->address());
  EXPECT_THAT(peer_ipv6, HasSubstr("ipv6:%5B::1%5D:"));
  EXPECT_GT(ipv6.connections.ReceivedBytes(peer_ipv6), 0u);
}

TEST(ConnectionsTest, EveryAddressIsIpv4AndIpv6) {
  if (!HasIpv6()) GTEST_SKIP() << "no IPv6 here";
  AcceptingServer server("0.0.0.0:0");
  const int port = PortOf(server.acceptor->address());
  const std::string peer = server.PeerOfCall(absl::StrCat("127.0.0.1:", port));
  EXPECT_THAT(peer, HasSubstr("ipv4:127.0.0.1:"));
  EXPECT_GT(server.connections.ReceivedBytes(peer), 0u);
  const std::string peer_ipv6 = server.PeerOfCall(absl::StrCat("[::1]:", port));
  EXPECT_THAT(peer_ipv6, HasSubstr("ipv6:%5B::1%5D:"));
  EXPECT_GT(server.connections.ReceivedBytes(peer_ipv6), 0u);
}

TEST(ConnectionsTest, NamesTheProcessBehindAUnixSocket) {
  const std::string path = testing::TempDir() + "peer_process";
  AcceptingServer server("unix:" + path);
  const std::string peer = server.PeerOfCall("unix:" + path);
  EXPECT_EQ(server.connections.Describe(peer),
            absl::StrCat("unix:pid=", ::getpid(), ",uid=", ::getuid()));
  EXPECT_EQ(server.connections.ReceivedBytes(peer), std::nullopt);
}

// The two ends of a TCP connection.
struct Ends {
  Descriptor server;
  Descriptor client;
  std::string peer;
};

Ends Connect() {
  auto listening = ListenTcp("127.0.0.1:0");
  EXPECT_TRUE(listening.ok());
  Ends ends;
  ends.client = Descriptor(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in name{};
  name.sin_family = AF_INET;
  name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  name.sin_port = htons(static_cast<uint16_t>(listening->port));
  socklen_t size = sizeof(name);
  EXPECT_EQ(::connect(ends.client.get(), reinterpret_cast<sockaddr*>(&name), size), 0);
  EXPECT_EQ(::getsockname(ends.client.get(), reinterpret_cast<sockaddr*>(&name), &size), 0);
  ends.peer = absl::StrCat("ipv4:127.0.0.1:", ntohs(name.sin_port));
  ends.server =
      Descriptor(::accept4(listening->sockets.front().get(), nullptr, nullptr, SOCK_CLOEXEC));
  EXPECT_GE(ends.server.get(), 0);
  return ends;
}

TEST(ConnectionsTest, CountsWhatHasCome) {
  Connections connections;
  Ends ends = Connect();
  connections.Add(ends.server.get());
  EXPECT_EQ(connections.ReceivedBytes(ends.peer), 0u);
  const std::string bytes(1000, 'x');
  ASSERT_EQ(::send(ends.client.get(), bytes.data(), bytes.size(), 0), 1000);
  EXPECT_TRUE(Eventually([&] { return connections.ReceivedBytes(ends.peer) == 1000u; }));
  EXPECT_EQ(connections.ReceivedBytes("ipv4:127.0.0.1:1"), std::nullopt);
}

TEST(ConnectionsTest, ForgetsTheOneThatIsClosed) {
  Connections connections;
  Ends ends = Connect();
  connections.Add(ends.server.get());
  EXPECT_EQ(connections.NumOpen(), 1);
  const int fd = ends.server.Release();
  // The number is another file's from here on, which is left alone.
  Ends other = Connect();
  ASSERT_EQ(::dup2(other.server.get(), fd), fd);
  const Descriptor reused(fd);
  EXPECT_EQ(connections.ReceivedBytes(ends.peer), std::nullopt);
  EXPECT_EQ(connections.End(ends.peer, EndReason::kFrames), 0);
  EXPECT_EQ(connections.num_ended(EndReason::kFrames), 0);
  EXPECT_EQ(connections.NumOpen(), 0);
  EXPECT_EQ(::send(other.client.get(), "x", 1, 0), 1);
  char byte = 0;
  EXPECT_EQ(::recv(fd, &byte, 1, 0), 1);
}

TEST(ConnectionsTest, EndsAPeersConnection) {
  HoldingExecutor executor;
  TestServer server(&executor);
  BackgroundInfer held(server, GoodRequest(kForwardFp16, {4}));
  ASSERT_TRUE(executor.AwaitHeld());
  EXPECT_EQ(server.connections.NumOpen(), 1);
  EXPECT_EQ(server.connections.End("ipv4:127.0.0.1:1", EndReason::kResets), 0);
  const std::string path = testing::TempDir() + "ended_peer";
  TestServerOptions options;
  options.address = "unix:" + path;
  TestServer unix_server(&executor, options);
  BackgroundInfer ended(unix_server, GoodRequest(kForwardFp16, {4}));
  ASSERT_TRUE(Eventually([&] { return unix_server.connections.NumOpen() == 1; }));
  EXPECT_EQ(unix_server.connections.End("unix:", EndReason::kResets), 1);
  EXPECT_EQ(unix_server.connections.num_ended(EndReason::kResets), 1);
  EXPECT_EQ(unix_server.connections.num_ended(EndReason::kFrames), 0);
  EXPECT_EQ(ended.Wait().status.error_code(), grpc::StatusCode::UNAVAILABLE);
  executor.Release();
  EXPECT_TRUE(held.Wait().status.ok());
}

// More can be wrong with a connection while gRPC still has its socket.
TEST(ConnectionsTest, CountsAConnectionThatItEndsOnce) {
  Connections connections;
  Ends ends = Connect();
  connections.Add(ends.server.get());
  EXPECT_EQ(connections.End(ends.peer, EndReason::kResets), 1);
  EXPECT_EQ(connections.End(ends.peer, EndReason::kResets), 0);
  EXPECT_EQ(connections.num_ended(EndReason::kResets), 1);
}

// A peer that has filled the server's buffer can send nothing, and so would not hear of an end that
// waits for what it sends.
TEST(ConnectionsTest, EndsAPeerWhoseWindowIsClosed) {
  Connections connections;
  Ends ends = Connect();
  connections.Add(ends.server.get());
  const std::string bytes(1 << 20, 'x');
  while (::send(ends.client.get(), bytes.data(), bytes.size(), MSG_DONTWAIT) > 0) {
  }
  ASSERT_EQ(errno, EAGAIN);
  EXPECT_EQ(connections.End(ends.peer, EndReason::kFrames), 1);
  ends.server = Descriptor();  // as gRPC does
  pollfd polled{ends.client.get(), 0, 0};
  EXPECT_EQ(::poll(&polled, 1, static_cast<int>(kPatience / absl::Milliseconds(1))), 1);
  EXPECT_NE(polled.revents & POLLERR, 0);
}

TEST(ConnectionsTest, TakesNothingFromAPausedPeerUntilItGoesOn) {
  Connections connections;
  Ends ends = Connect();
  connections.Add(ends.server.get());
  ASSERT_TRUE(connections.SetPaused(ends.peer, true));
  ASSERT_EQ(::send(ends.client.get(), "xyz", 3, 0), 3);
  pollfd polled{ends.server.get(), POLLIN, 0};
  EXPECT_EQ(::poll(&polled, 1, 50), 0);
  ASSERT_TRUE(connections.SetPaused(ends.peer, false));
  char taken[3];
  EXPECT_EQ(::recv(ends.server.get(), taken, sizeof(taken), MSG_WAITALL), 3);
  ends.server = Descriptor();
  EXPECT_FALSE(connections.SetPaused(ends.peer, true));
}

// A peer sends its reset only once.
TEST(ConnectionsTest, HearsThatAPausedPeerEndsTheConnection) {
  for (const bool by_reset : {false, true}) {
    Connections connections;
    Ends ends = Connect();
    connections.Add(ends.server.get());
    ASSERT_TRUE(connections.SetPaused(ends.peer, true));
    const linger at_once{.l_onoff = by_reset, .l_linger = 0};
    ::setsockopt(ends.client.get(), SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
    ends.client = Descriptor();
    pollfd polled{ends.server.get(), POLLIN, 0};
    ASSERT_EQ(::poll(&polled, 1, static_cast<int>(kPatience / absl::Milliseconds(1))), 1);
    char taken;
    EXPECT_EQ(::recv(ends.server.get(), &taken, 1, 0), by_reset ? -1 : 0);
  }
}

TEST(ConnectionsTest, APausedPeerTakesWhatItIsSent) {
  Connections connections;
  Ends ends = Connect();
  connections.Add(ends.server.get());
  ASSERT_TRUE(connections.SetPaused(ends.peer, true));
  ASSERT_EQ(::send(ends.server.get(), "xyz", 3, 0), 3);
  EXPECT_TRUE(Eventually([&ends] {
    int num_unacknowledged = -1;
    return ::ioctl(ends.server.get(), SIOCOUTQ, &num_unacknowledged) == 0 &&
           num_unacknowledged == 0;
  }));
}

// Whether the kernel drops what comes to the socket.
bool IsPaused(const Descriptor& socket) {
  socklen_t num_instructions = 0;
  return ::getsockopt(socket.get(), SOL_SOCKET, SO_GET_FILTER, nullptr, &num_instructions) == 0 &&
         num_instructions > 0;
}

TEST(FloodWatchTest, PausesAFloodAndLetsItGoOn) {
  Admission admission({});
  Connections connections;
  Ends ends = Connect();
  connections.Add(ends.server.get());
  MessageWatch messages(&admission, &connections, std::chrono::seconds(30));
  const FloodWatch watch(&connections, &messages);
  const std::string bytes(1 << 20, 'x');
  const auto take = [&] {
    ::recv(ends.server.get(), nullptr, bytes.size(), MSG_TRUNC | MSG_DONTWAIT);
  };
  EXPECT_TRUE(Eventually([&] {
    ::send(ends.client.get(), bytes.data(), bytes.size(), MSG_DONTWAIT);
    take();
    return IsPaused(ends.server);
  }));
  EXPECT_TRUE(Eventually([&] {
    take();
    return !IsPaused(ends.server);
  }));
}

TEST(ConnectionsTest, TellsWhatWasTakenFromEach) {
  Connections connections;
  Ends first = Connect();
  Ends second = Connect();
  Ends closed = Connect();
  for (const Ends* ends : {&first, &second, &closed}) connections.Add(ends->server.get());
  closed.server = Descriptor();
  ASSERT_EQ(::send(second.client.get(), "xyz", 3, 0), 3);
  char taken[2];
  ASSERT_EQ(::recv(second.server.get(), taken, sizeof(taken), MSG_WAITALL), 2);
  ASSERT_TRUE(Eventually([&] { return connections.ReceivedBytes(second.peer) == 3u; }));
  std::map<std::string, uint64_t> bytes;
  std::set<ino_t> inodes;
  for (const Connections::Taken& of_one : connections.TakenFromAll()) {
    bytes[of_one.peer] = of_one.bytes;
    inodes.insert(of_one.inode);
  }
  EXPECT_EQ(bytes, (std::map<std::string, uint64_t>{{first.peer, 0}, {second.peer, 2}}));
  EXPECT_EQ(inodes.size(), 2u);
}

TEST(AcceptorTest, ClosesWhatIsTooMany) {
  HoldingExecutor executor;
  executor.Release();
  TestServerOptions options;
  options.max_connections = 2;
  TestServer server(&executor, options);
  ASSERT_TRUE(Infer(server, GoodRequest(kForwardFp16, {4})).status.ok());
  const auto second = server.NewChannel();
  ASSERT_TRUE(second->WaitForConnected(absl::ToChronoTime(absl::Now() + kPatience)));
  // A third one is closed at once, and its call fails rather than waits.
  const auto third = server.NewChannel();
  auto stub = inference::GRPCInferenceService::NewStub(third);
  PatientContext context;
  inference::ServerLiveResponse response;
  EXPECT_EQ(stub->ServerLive(&context, {}, &response).error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_GE(server.connections.num_refused(), 1);
  // The others go on.
  EXPECT_TRUE(Infer(server, GoodRequest(kForwardFp16, {4})).status.ok());
}

TEST(AcceptorTest, TakesAnotherWhenOneHasEnded) {
  HoldingExecutor executor;
  executor.Release();
  TestServerOptions options;
  options.max_connections = 2;
  TestServer server(&executor, options);
  ASSERT_TRUE(Infer(server, GoodRequest(kForwardFp16, {4})).status.ok());
  for (int i = 0; i < 5; ++i) {
    const auto another = server.NewChannel();
    ASSERT_TRUE(another->WaitForConnected(absl::ToChronoTime(absl::Now() + kPatience)));
  }
}

// Descriptors that this process may still open, until it is destroyed.
class FewDescriptors {
 public:
  explicit FewDescriptors(int num_free) {
    ::getrlimit(RLIMIT_NOFILE, &before_);
    const Descriptor next(::dup(0));
    rlimit few = before_;
    few.rlim_cur = static_cast<rlim_t>(next.get() + num_free);
    EXPECT_EQ(::setrlimit(RLIMIT_NOFILE, &few), 0);
    for (int i = 0; i < num_free; ++i) taken_.emplace_back(::dup(0));
  }
  ~FewDescriptors() { ::setrlimit(RLIMIT_NOFILE, &before_); }

 private:
  rlimit before_{};
  std::vector<Descriptor> taken_;
};

// Whether the test runs under a sanitizer that needs descriptors for its own checks.
constexpr bool SanitizerNeedsDescriptors() {
#if defined(__has_feature)
#if __has_feature(undefined_behavior_sanitizer)
  return true;
#endif
#endif
  return false;
}

TEST(ConnectionsTest, ClosesAllWithOneFreeDescriptor) {
  if (SanitizerNeedsDescriptors()) {
    GTEST_SKIP() << "the sanitizer needs descriptors for its own checks";
  }
  Connections connections;
  std::vector<Ends> all;
  for (int i = 0; i < 3; ++i) {
    all.push_back(Connect());
    connections.Add(all.back().server.get());
  }
  Descriptor spare(::dup(0));
  {
    const FewDescriptors none(0);
    spare = Descriptor();
    connections.Close(absl::Now() + kPatience);
  }
  for (const Ends& ends : all) {
    pollfd polled{ends.client.get(), POLLIN, 0};
    ASSERT_EQ(::poll(&polled, 1, static_cast<int>(kPatience / absl::Milliseconds(1))), 1);
    char byte = 0;
    EXPECT_EQ(::recv(ends.client.get(), &byte, 1, 0), 0);
  }
}

TEST(AcceptorTest, AcceptsAgainWhenThereAreDescriptorsAgain) {
  if (SanitizerNeedsDescriptors()) {
    GTEST_SKIP() << "the sanitizer needs descriptors for its own checks";
  }
  std::atomic<bool> is_accepting{true};
  std::atomic<int> num_taken{0};
  std::vector<Descriptor> taken(16);
  auto acceptor = Acceptor::Listen({.address = "127.0.0.1:0"});
  ASSERT_TRUE(acceptor.ok());
  (*acceptor)->Start({.num_open = [] { return 0; },
                      .refused = [] {},
                      .take = [&](int fd) { taken[num_taken++] = Descriptor(fd); },
                      .accepting_changed = [&](bool accepting) { is_accepting = accepting; }});
  const Descriptor client(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in name{};
  name.sin_family = AF_INET;
  name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  name.sin_port = htons(static_cast<uint16_t>(PortOf((*acceptor)->address())));
  {
    const FewDescriptors none(0);
    ASSERT_EQ(::connect(client.get(), reinterpret_cast<sockaddr*>(&name), sizeof(name)), 0);
    EXPECT_TRUE(Eventually([&] { return !is_accepting; }));
    EXPECT_EQ(num_taken, 0);
  }
  EXPECT_TRUE(Eventually([&] { return num_taken == 1; }));
  EXPECT_TRUE(Eventually([&] { return is_accepting.load(); }));
}

TEST(AcceptorTest, AUnixSocketHasTheModeAskedFor) {
  const std::string path = testing::TempDir() + "socket_mode";
  const mode_t umask_before = ::umask(0077);
  for (const int mode : {0600, 0660, 0666}) {
    auto acceptor = Acceptor::Listen({.address = "unix:" + path, .unix_socket_mode = mode});
    ASSERT_TRUE(acceptor.ok()) << acceptor.status();
    struct stat info {};
    ASSERT_EQ(::stat(path.c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 0777, static_cast<mode_t>(mode));
    (*acceptor)->Stop();
    EXPECT_NE(::stat(path.c_str(), &info), 0);
  }
  ::umask(umask_before);
}

TEST(AcceptorTest, SaysWhatIsNoAddress) {
  for (const std::string address : {"", "8001", ":8001", "host", "host:port", "unix:"}) {
    EXPECT_EQ(Acceptor::Listen({.address = address}).status(),
              absl::InvalidArgumentError("'" + address +
                                         "' is not an address: HOST:PORT or unix:/path is needed"));
  }
}

}  // namespace
}  // namespace swiglu::server
