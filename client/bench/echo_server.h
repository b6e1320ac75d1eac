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

// Answers ModelInfer and ServerReady, from construction to destruction. Other methods are
// UNIMPLEMENTED. Requests of a size for which it has no answer are INVALID_ARGUMENT.
class EchoServer {
 public:
  // FAILED_PRECONDITION if it cannot listen on the address. REQUIRES: `answers` outlives the
  // server.
  static absl::StatusOr<std::unique_ptr<EchoServer>> Start(const EchoOptions& options,
                                                           const EchoAnswers* answers);
  ~EchoServer();

  // The address on which it listens, in the form in which a client connects to it.
  const std::string& address() const { return address_; }

 private:
  class Impl;

  EchoServer(std::unique_ptr<Impl> impl, std::string address);

  const std::unique_ptr<Impl> impl_;
  const std::string address_;
};

}  // namespace swiglu::bench
