// SPDX-License-Identifier: Apache-2.0
//
// `swiglu forward` and `swiglu backward`: files → server → files.
#pragma once

#include "client/cli/command_line.h"
#include "client/cli/exit_code.h"
#include "client/files/unfinished_files.h"

namespace swiglu::cli {

// Runs the command and prints its line. It makes all checks that it can before it sends anything.
// Output files appear only when all results are there. `unfinished` knows the files that are not
// finished. REQUIRES: the command is kForward or kBackward.
ProgramEnd RunInfer(const CommandLine& command_line, files::UnfinishedFiles& unfinished);

}  // namespace swiglu::cli
