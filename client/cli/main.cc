// SPDX-License-Identifier: Apache-2.0
//
// The command `swiglu`: computes SwiGLU on tensor files by means of a server.
#include <signal.h>
#include <stdio.h>

#include <string>

#include "client/cli/command_line.h"
#include "client/cli/commands.h"
#include "client/cli/exit_code.h"
#include "client/cli/progress_bar.h"
#include "client/cli/signal_watch.h"
#include "client/files/standard_streams.h"
#include "client/files/unfinished_files.h"
#include "swiglu/client.h"

namespace swiglu::cli {
namespace {

ProgramEnd Run(const CommandLine& command_line, files::UnfinishedFiles& unfinished) {
  switch (command_line.command) {
    case Command::kForward:
    case Command::kBackward:
    case Command::kMlp:
      return RunInfer(command_line, unfinished);
    case Command::kStatus:
      return RunStatus(command_line);
    case Command::kMetadata:
      return RunMetadata(command_line);
    case Command::kStatistics:
      return RunStatistics(command_line);
    case Command::kRegions:
      return RunRegions(command_line);
    case Command::kPrint:
      fputs(command_line.text.c_str(), stdout);
      return {};
  }
  return {ExitCode::kUsage, "unknown command"};
}

int Main(int argc, char** argv) {
  if (argc > 1 && argv[1] == std::string("bench")) return Finish("swiglu", RunBench(argv + 2));
  files::HoldStandardStreams();
  // With SIGPIPE ignored, a write to a pipe whose reader has gone returns an error.
  signal(SIGPIPE, SIG_IGN);
  // With SIGXFSZ ignored, a write beyond the limit on file size returns an error.
  signal(SIGXFSZ, SIG_IGN);
  files::UnfinishedFiles unfinished;
  const SignalWatch watch([&unfinished](int signal) {
    unfinished.RemoveAll();
    // Ctrl-C lets a terminal that was stopped go on, so this write does not block.
    if (signal == SIGINT) WipeProgressForGood();
    EndBy(signal);
  });
  absl::StatusOr<CommandLine> command_line = ParseCommandLine(argc, argv);
  if (!command_line.ok()) {
    return Finish("swiglu", {ExitCode::kUsage, std::string(command_line.status().message())});
  }
  return Finish("swiglu", Run(*command_line, unfinished));
}

}  // namespace
}  // namespace swiglu::cli

int main(int argc, char** argv) {
  swiglu::client::TuneProcess();
  return swiglu::cli::Main(argc, argv);
}
