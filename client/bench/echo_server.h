// SPDX-License-Identifier: Apache-2.0
//
// The bare echo: a gRPC server that moves the bytes that the real one moves and computes nothing.
// It is the yardstick of the benchmark, so it is as fast as such a server can be made.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "client/bench/echo_answer.h"

namespace swiglu::bench {

enum class EchoQueues {
  kOwn,     // a completion queue for each thread
  kShared,  // one for all of them
};

struct EchoOptions {
  std::string address;  // HOST:PORT, where port 0 takes a free one, or unix:/path
  int num_threads = 4;  // 1 or more
  EchoQueues queues = EchoQueues::kOwn;
};

// Answers ModelInfer and ServerReady, from construction to destruction; other methods are
// UNIMPLEMENTED, and requests of a size that it has no answer for INVALID_ARGUMENT.
class EchoServer {
 public:
  // FAILED_PRECONDITION if the address cannot be had. REQUIRES: `answers` outlives the server.
  static absl::StatusOr<std::unique_ptr<EchoServer>> Start(const EchoOptions& options,
                                                           const EchoAnswers* answers);
  ~EchoServer();

  // Where it listens, as a client takes it.
  const std::string& address() const { return address_; }

 private:
  class Impl;

  EchoServer(std::unique_ptr<Impl> impl, std::string address);

  const std::unique_ptr<Impl> impl_;
  const std::string address_;
};

}  // namespace swiglu::bench
