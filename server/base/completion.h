// SPDX-License-Identifier: Apache-2.0
//
// The completion of a program's command line in bash, made from the program's table of flags.
#pragma once

#include <string>

#include "server/base/command_line.h"

namespace swiglu::server {

// A script for bash. Once a shell has read it, the key Tab completes the program's commands, the
// flags of the command that was given, the values of flags that take one of a few words, and the
// names of files and folders. If a command hands its arguments to another program, the other
// program's completion completes them.
std::string BashCompletion(const Program& program);

}  // namespace swiglu::server
