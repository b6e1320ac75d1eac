// SPDX-License-Identifier: Apache-2.0
//
// Starts the program SWIGLU_SERVER and reads its address from its log.
#include "tests/client/server_process.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <utility>

#include "gtest/gtest.h"
#include "tests/client/bytes.h"

namespace swiglu::client {

ServerProcess::ServerProcess(std::vector<std::string> flags, const std::string& address) {
  flags.insert(flags.begin(), {"swiglu-server", "--grpc_address=" + address,
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

ServerProcess::~ServerProcess() {
  close(log_);
  if (pid_ <= 0) return;
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
}

void ServerProcess::Kill() { EndBy(SIGKILL); }
void ServerProcess::Stop() { EndBy(SIGTERM); }

void ServerProcess::Drain() { Send(SIGTERM); }

void ServerProcess::Pause() {
  Send(SIGSTOP);
  // It may still run when kill returns.
  siginfo_t info = {};
  EXPECT_EQ(waitid(P_PID, static_cast<id_t>(pid_), &info, WSTOPPED), 0);
}
void ServerProcess::Resume() { Send(SIGCONT); }

void ServerProcess::Send(int signal) {
  ASSERT_GT(pid_, 0);
  EXPECT_EQ(kill(pid_, signal), 0);
}

void ServerProcess::EndBy(int signal) {
  Send(signal);
  EXPECT_EQ(waitpid(pid_, nullptr, 0), pid_);
  pid_ = 0;
}

void ServerProcess::ReadAddress() {
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

std::unique_ptr<Client> Connect(const ServerProcess& server, const Options& options) {
  auto client = Client::Create(server.address(), options);
  EXPECT_TRUE(client.ok()) << client.status();
  return std::make_unique<Client>(*std::move(client));
}

std::string Numbers(int64_t num_bytes, uint32_t seed) {
  std::string bytes = Pattern(static_cast<size_t>(num_bytes), seed);
  for (char& c : bytes) c = static_cast<char>(c & 0xbf);
  return bytes;
}

}  // namespace swiglu::client
