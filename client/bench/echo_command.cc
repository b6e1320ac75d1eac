// SPDX-License-Identifier: Apache-2.0
//
// Signals are blocked in all threads and waited for in this one.
#include "client/bench/echo_command.h"

#include <signal.h>
#include <stdio.h>

#include "client/bench/echo_answer.h"
#include "client/bench/echo_server.h"

namespace swiglu::bench {

cli::ProgramEnd ServeEcho(const CommandLine& command) {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);

  const EchoAnswers answers(*command.echo_model, command.echo_bytes);
  const absl::StatusOr<std::unique_ptr<EchoServer>> server =
      EchoServer::Start(command.echo, &answers);
  if (!server.ok()) return cli::BadInput(server.status());
  printf("serving the echo on %s\n", (*server)->address().c_str());
  fflush(stdout);
  int signal = 0;
  sigwait(&signals, &signal);
  return {};
}

}  // namespace swiglu::bench
