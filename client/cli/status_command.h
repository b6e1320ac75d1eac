// SPDX-License-Identifier: Apache-2.0
//
// `swiglu status`: what the server reports about itself.
#pragma once

#include "client/cli/command_line.h"
#include "client/cli/exit_code.h"

namespace swiglu::cli {

// Asks the server and prints its answers. If the server answers but is not ready, this prints that,
// and ends with kUnreachable. REQUIRES: the command is kStatus.
ProgramEnd RunStatus(const CommandLine& command_line);

}  // namespace swiglu::cli
