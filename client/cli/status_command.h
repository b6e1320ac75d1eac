// SPDX-License-Identifier: Apache-2.0
//
// `swiglu status`: what the server says of itself.
#pragma once

#include "client/cli/command_line.h"
#include "client/cli/exit_code.h"

namespace swiglu::cli {

// Asks the server and prints what it says. A server that answers and is not ready is printed too,
// and the outcome is kUnreachable. REQUIRES: the command is kStatus.
Outcome RunStatus(const CommandLine& command_line);

}  // namespace swiglu::cli
