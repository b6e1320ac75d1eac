// SPDX-License-Identifier: Apache-2.0
//
// The program swiglu-server as a process of its own, for tests of the library with it.
#pragma once

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "swiglu/client.h"
#include "tests/client/bytes.h"

namespace swiglu::client {

// A running server on the CPU. It ends with this object.
class ServerProcess {
 public:
  explicit ServerProcess(std::vector<std::string> flags) {
    flags.insert(flags.begin(), {"swiglu-server", "--grpc_address=127.0.0.1:0",
                                 "--metrics_address=", "--device=cpu"});
    std::vector<char*> argv;
    for (std::string& flag : flags) argv.push_back(flag.data());
    argv.push_back(nullptr);
    int log[2] = {};
    EXPECT_EQ(pipe2(log, O_CLOEXEC), 0);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, log[1], STDERR_FILENO);
    EXPECT_EQ(posix_spawn(&pid_, SWIGLU_SERVER, &actions, nullptr, argv.data(), environ), 0);
    posix_spawn_file_actions_destroy(&actions);
    close(log[1]);
    log_ = log[0];
    ReadAddress();
  }
  ~ServerProcess() {
    close(log_);
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  ServerProcess(const ServerProcess&) = delete;
  ServerProcess& operator=(const ServerProcess&) = delete;

  const std::string& address() const { return address_; }

  // Ends it with SIGKILL, as a crash would.
  void Kill() { EXPECT_EQ(kill(pid_, SIGKILL), 0); }
  // Asks it to drain and end.
  void Stop() { EXPECT_EQ(kill(pid_, SIGTERM), 0); }

 private:
  // The rest of the log is left in the pipe.
  void ReadAddress() {
    constexpr char kServing[] = "serving gRPC on ";
    std::string text;
    size_t begin = std::string::npos;
    char c = 0;
    while (read(log_, &c, 1) == 1) {
      text.push_back(c);
      if (c != '\n') continue;
      begin = text.find(kServing);
      if (begin != std::string::npos) break;
    }
    ASSERT_NE(begin, std::string::npos) << text;
    begin += std::strlen(kServing);
    address_ = text.substr(begin, text.find_first_of(" \n\"", begin) - begin);
  }

  pid_t pid_ = 0;
  int log_ = -1;
  std::string address_;
};

inline std::unique_ptr<Client> Connect(const ServerProcess& server, const Options& options = {}) {
  auto client = Client::Create(server.address(), options);
  EXPECT_TRUE(client.ok()) << client.status();
  return *std::move(client);
}

// The bytes of finite numbers of any dtype.
inline std::string Numbers(int64_t num_bytes, uint32_t seed) {
  std::string bytes = Pattern(static_cast<size_t>(num_bytes), seed);
  for (char& c : bytes) c = static_cast<char>(c & 0xbf);
  return bytes;
}

}  // namespace swiglu::client
