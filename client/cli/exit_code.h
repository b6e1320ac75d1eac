// SPDX-License-Identifier: Apache-2.0
//
// How a program ends: the exit codes that scripts rely on, each with one line about an error.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "swiglu/client.h"

namespace swiglu::cli {

enum class ExitCode {
  kDone = 0,
  kBadInput = 1,     // a file, or what it holds
  kUsage = 2,        // the command line
  kUnreachable = 3,  // no server there, or one that takes no requests
  kRefused = 4,      // the server refused or failed the call
};

// A program's end. `error` is one line for stderr, empty if there is nothing to say.
struct ProgramEnd {
  ExitCode code = ExitCode::kDone;
  std::string error;
};

// How the program ends after a local error: bad input.
ProgramEnd BadInput(const absl::Status& status);

// How the program ends after a failed call. Some codes do not say whether the server is overloaded
// or absent. For these it asks the server whether it is ready, and waits 2 s at most.
ProgramEnd CallFailed(const absl::Status& status, client::Client& client);

// OK if the server is there and ready. Otherwise this is how the command ends.
ProgramEnd CheckReady(client::Client& client);

// Ends a program's work: flushes stdout, which may fail, prints the error on stderr as one line
// that begins with the program's name, and gives the exit code.
int Finish(absl::string_view program, ProgramEnd end);

}  // namespace swiglu::cli
