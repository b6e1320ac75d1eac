// SPDX-License-Identifier: Apache-2.0
//
// The bare echo: a gRPC server that moves the bytes that the real one moves and computes nothing.
// It is the yardstick of the benchmark, so it is as fast as such a server can be made.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "client/bench/model.h"
#include "client/cli/exit_code.h"

namespace swiglu::bench {

enum class EchoQueues {
  kOwn,     // a completion queue for each thread
  kShared,  // one for all of them
};

struct EchoOptions {
  std::string address;  // HOST:PORT, where port 0 takes a free one, or unix:/path
  int num_threads = 4;  // 1 or more
  EchoQueues queues = EchoQueues::kOwn;
  const Model* model = nullptr;
  std::vector<int64_t> request_bytes;  // sizes of requests, as EchoAnswers takes them
};

// Answers ModelInfer and ServerReady. Other methods are UNIMPLEMENTED. Requests of a size for which
// it has no answer are INVALID_ARGUMENT. Prints the address on a line of its own, and blocks until
// SIGTERM or SIGINT. REQUIRES: no other thread runs yet.
cli::ProgramEnd ServeEcho(const EchoOptions& options);

}  // namespace swiglu::bench
