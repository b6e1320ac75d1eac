// SPDX-License-Identifier: Apache-2.0
//
// `swiglu forward` and `swiglu backward`: files → server → files.
#pragma once

#include "client/cli/command_line.h"
#include "client/cli/exit_code.h"
#include "client/files/unfinished_files.h"

namespace swiglu::cli {

// Runs the command and prints its line. Whatever can be checked is checked before anything is sent;
// output files appear only when all results are there, and what is not finished is known to
// `unfinished`. REQUIRES: the command is kForward or kBackward.
Outcome RunInfer(const CommandLine& command_line, files::UnfinishedFiles& unfinished);

}  // namespace swiglu::cli
