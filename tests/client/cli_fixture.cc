// SPDX-License-Identifier: Apache-2.0
//
// Starts the program and waits for its end.
#include "tests/client/cli_fixture.h"

#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/files/npy.h"
#include "tests/client/bytes.h"
#include "tests/client/named_tensors.h"

namespace swiglu {

using client::Dtype;
using client::FakeCall;
using client::FakeReply;
using client::FakeServer;
using client::Shape;

FakeReply Echo(const FakeCall& call) {
  if (call.method == "ModelInfer") return client::EchoInfer(call);
  inference::ServerReadyResponse response;
  response.set_ready(true);
  return client::Answer(response);
}

Result CliTest::Swiglu(const std::vector<std::string>& arguments) {
  const std::string out = out_.empty() ? folder_.Path("stdout") : out_;
  const std::string err = err_.empty() ? folder_.Path("stderr") : err_;
  std::vector<char*> argv = {const_cast<char*>("swiglu")};
  for (const std::string& argument : arguments) {
    argv.push_back(const_cast<char*>(argument.c_str()));
  }
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  constexpr int kFlags = O_WRONLY | O_CREAT | O_TRUNC;
  posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, out.c_str(), kFlags, 0600);
  posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, err.c_str(), kFlags, 0600);
  pid_t child = 0;
  // The test itself may run where signals are ignored, as in the background of a script.
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF);
  posix_spawnattr_setsigdefault(&attributes, &default_signals_);
  EXPECT_EQ(posix_spawn(&child, SWIGLU_PROGRAM, &actions, &attributes, argv.data(), environ), 0);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  child_.store(child);
  child_.notify_all();
  int status = 0;
  waitpid(child, &status, 0);
  child_.store(0);
  child_.notify_all();
  Result run{WIFEXITED(status) ? WEXITSTATUS(status) : -1,
             WIFSIGNALED(status) ? WTERMSIG(status) : 0, "", ""};
  if (out_.empty()) {
    run.out = TempFolder::Read(out);
    remove(out.c_str());
  }
  if (err_.empty()) {
    run.err = TempFolder::Read(err);
    remove(err.c_str());
  }
  return run;
}

void CliTest::Signal(int signal) {
  child_.wait(0);
  EXPECT_EQ(kill(child_.load(), signal), 0);
}

Result CliTest::RunWith(const std::string& operation, const std::vector<std::string>& arguments,
                        const std::function<void()>& on_infer) {
  const std::string file = Npy("in.npy", {2}, 1);
  FakeServer server([&](const FakeCall& call) {
    if (call.method == "ModelInfer") on_infer();
    return Echo(call);
  });
  std::vector<std::string> all = {operation, "--server=" + server.address(), "--e=" + file,
                                  "--g=" + file};
  if (operation == "backward") all.push_back("--dw=" + file);
  all.insert(all.end(), arguments.begin(), arguments.end());
  return Swiglu(all);
}

std::string CliTest::Npy(absl::string_view name, const Shape& shape, uint32_t seed) {
  const int64_t size = client::TensorBytes("t", Dtype::kFp16, shape).value();
  return folder_.Write(name, files::NpyHeader(Dtype::kFp16, shape).value() +
                                 Pattern(static_cast<size_t>(size), seed));
}

std::string CliTest::Bf16(absl::string_view name, const Shape& shape, uint32_t seed) {
  const int64_t size = client::TensorBytes("t", Dtype::kBf16, shape).value();
  return folder_.Write(
      name, SafetensorsFile("x", Dtype::kBf16, shape, Pattern(static_cast<size_t>(size), seed)));
}

Result CliTest::ForwardAgainst(FakeReply reply, bool ready_afterwards) {
  bool asked = false;
  FakeServer server([&](const FakeCall& call) {
    if (call.method == "ServerReady") {
      inference::ServerReadyResponse response;
      response.set_ready(!asked || ready_afterwards);
      asked = true;
      return client::Answer(response);
    }
    return reply;
  });
  return Swiglu({"forward", "--e", Npy("e.npy", {2}, 1), "--g", Npy("g.npy", {2}, 2), "--out",
                 folder_.Path("h.npy"), "--timeout=1s", "--server", server.address()});
}

}  // namespace swiglu
