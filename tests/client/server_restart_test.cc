// SPDX-License-Identifier: Apache-2.0
//
// The library with the program swiglu-server that restarts on the same port while the client is
// idle.
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <filesystem>
#include <memory>
#include <string>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "swiglu/client.h"
#include "tests/client/bytes.h"
#include "tests/client/server_process.h"

namespace swiglu::client {
namespace {

// Whether this process has an open connection to the server.
bool IsConnectedTo(const std::string& address) {
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    const int fd = std::stoi(entry.path().filename());
    sockaddr_in peer = {};
    socklen_t size = sizeof(peer);
    if (getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &size) != 0) continue;
    if (!absl::EndsWith(address, absl::StrCat(":", ntohs(peer.sin_port)))) continue;
    tcp_info info = {};
    size = sizeof(info);
    EXPECT_EQ(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size), 0);
    if (info.tcpi_state == TCP_ESTABLISHED) return true;
  }
  return false;
}

// The client notices the loss, and connects again, while no call is under way.
TEST(ServerRestartTest, AnIdleClientIsConnectedAgainBeforeItsNextCall) {
  auto server = std::make_unique<ServerProcess>(std::vector<std::string>());
  const std::string address = server->address();
  const auto client = Connect(*server, {.num_connections = 1});
  const std::string bytes = Numbers(1024, 1);
  const TensorView tensor{Dtype::kFp16, {512}, AsBytes(bytes)};
  // The last ones go over a stream.
  for (int i = 0; i < 20; ++i) {
    ASSERT_EQ(client->Forward(tensor, tensor).status(), absl::OkStatus());
  }
  server->Stop();
  while (IsConnectedTo(address)) std::this_thread::yield();
  server = std::make_unique<ServerProcess>(std::vector<std::string>(), address);
  while (!IsConnectedTo(address)) std::this_thread::yield();
  EXPECT_EQ(client->Forward(tensor, tensor).status(), absl::OkStatus());
}

}  // namespace
}  // namespace swiglu::client
