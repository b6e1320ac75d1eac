// SPDX-License-Identifier: Apache-2.0
//
// The echo server: a gRPC server that moves the same bytes as the real server but computes nothing.
// The benchmark compares the real server with it, so the echo server is made as fast as possible.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "client/bench/model.h"
#include "client/cli/exit_code.h"

namespace swiglu::bench {

enum class EchoQueues {
  kOwn,     // each thread has a completion queue
  kShared,  // all threads share one queue
};

struct EchoOptions {
  std::string address;  // HOST:PORT (port 0: any free port) or unix:/path
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
