// SPDX-License-Identifier: Apache-2.0
//
// Runs the program `swiglu` as a user runs it, on files and against servers that a test sets up.
#pragma once

#include <signal.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "gtest/gtest.h"
#include "swiglu/tensor.h"
#include "tests/client/fake_server.h"
#include "tests/client/temp_folder.h"

namespace swiglu {

struct Result {
  int code = -1;   // -1: a signal ended it
  int signal = 0;  // the signal
  std::string out;
  std::string err;
};

// No server listens on port 1 of this machine.
inline constexpr char kNoServer[] = "--server=127.0.0.1:1";

// A server that is ready and echoes.
client::FakeReply Echo(const client::FakeCall& call);

class CliTest : public ::testing::Test {
 protected:
  CliTest() { sigfillset(&default_signals_); }

  Result Swiglu(const std::vector<std::string>& arguments);

  // For a handler of the server: sends a signal to the program that is running.
  void Signal(int signal);

  // Runs the command `operation` on good files, all the same one of FP16, against a server that is
  // ready and calls `on_infer` before it echoes.
  Result RunWith(const std::string& operation, const std::vector<std::string>& arguments,
                 const std::function<void()>& on_infer);

  std::string Npy(absl::string_view name, const client::Shape& shape, uint32_t seed);
  std::string Bf16(absl::string_view name, const client::Shape& shape, uint32_t seed);

  // Runs forward on good files against a server that answers ModelInfer with `reply`.
  Result ForwardAgainst(client::FakeReply reply, bool ready_afterwards = true);

  TempFolder folder_;
  std::string out_, err_;        // where its output goes; empty: what `Result` has
  sigset_t default_signals_;     // that the program is started with
  std::atomic<pid_t> child_{0};  // the program, while it runs
};

}  // namespace swiglu
