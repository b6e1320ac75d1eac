// SPDX-License-Identifier: Apache-2.0
//
// The commands of `swiglu`.
#pragma once

#include "client/cli/command_line.h"
#include "client/cli/exit_code.h"
#include "client/files/unfinished_files.h"

namespace swiglu::cli {

// `swiglu forward`, `swiglu backward` and `swiglu mlp`: files → server → files.
//
// Runs the command and prints its line. Makes all checks that are possible before it sends
// anything. Output files appear only when all results are there. `unfinished` knows the files that
// are not finished. REQUIRES: the command is kForward, kBackward or kMlp.
ProgramEnd RunInfer(const CommandLine& command_line, files::UnfinishedFiles& unfinished);

// `swiglu status`: what the server reports about itself.
//
// Asks the server and prints its answers. If the server answers but is not ready, the output says
// so, and the command ends with kUnreachable. REQUIRES: the command is kStatus.
ProgramEnd RunStatus(const CommandLine& command_line);

// `swiglu metadata`: what the server reports about itself, or about one of its models.
//
// Asks the server and prints its answer. REQUIRES: the command is kMetadata.
ProgramEnd RunMetadata(const CommandLine& command_line);

// `swiglu statistics`: what the server has counted for its models, or for one of them.
//
// Asks the server and prints its answer. REQUIRES: the command is kStatistics.
ProgramEnd RunStatistics(const CommandLine& command_line);

// `swiglu regions`: the regions of shared memory that are registered at the server.
//
// Prints them, or unregisters one or all of them. REQUIRES: the command is kRegions.
ProgramEnd RunRegions(const CommandLine& command_line);

// `swiglu bench`: the load generator.
//
// The process becomes the program swiglu-bench of the folder that this program is in. `arguments`
// are those after `bench`, with nullptr at the end. Returns only if it fails. REQUIRES: the process
// has changed nothing that a program inherits, such as the handling of signals.
ProgramEnd RunBench(char* const* arguments);

}  // namespace swiglu::cli
