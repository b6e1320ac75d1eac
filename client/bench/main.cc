// SPDX-License-Identifier: Apache-2.0
//
// The program `swiglu-bench`: loads a server, or serves the echo that a server is compared with.
#include <grpc/grpc.h>
#include <stdio.h>

#include "absl/types/optional.h"
#include "client/bench/command_line.h"
#include "client/bench/echo_server.h"
#include "client/bench/load_command.h"
#include "client/cli/exit_code.h"
#include "client/cli/signal_watch.h"
#include "swiglu/client.h"
#include "version/version.h"

namespace swiglu::bench {
namespace {

cli::ProgramEnd Run(const CommandLine& command, StopOrder& stop) {
  switch (command.action) {
    case Action::kLoad:
      return RunLoad(command, stop);
    case Action::kServeEcho:
      return ServeEcho(command.echo);
    case Action::kHelp:
      fputs(HelpText().c_str(), stdout);
      return {};
    case Action::kCompletion:
      fputs(CompletionText().c_str(), stdout);
      return {};
    case Action::kManual:
      fputs(ManualText().c_str(), stdout);
      return {};
    case Action::kVersion:
      printf("swiglu-bench %s (%s)\n", kVersion, kCommit);
      return {};
  }
  return {cli::ExitCode::kUsage, "unknown action"};
}

int Main(int argc, char** argv) {
  const absl::StatusOr<CommandLine> command = ParseCommandLine(argc, argv);
  if (!command.ok()) {
    return cli::Finish("swiglu-bench",
                       {cli::ExitCode::kUsage, std::string(command.status().message())});
  }
  StopOrder stop;
  absl::optional<cli::SignalWatch> watch;
  if (command->action == Action::kLoad) {
    watch.emplace([&stop](int signal) { stop.Take(signal); });
  }
  // Keeps gRPC alive to the end. When its last user goes, gRPC waits for its sleeping pollers.
  grpc_init();
  return cli::Finish("swiglu-bench", Run(*command, stop));
}

}  // namespace
}  // namespace swiglu::bench

int main(int argc, char** argv) {
  swiglu::client::TuneProcess();
  return swiglu::bench::Main(argc, argv);
}
