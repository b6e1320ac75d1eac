// SPDX-License-Identifier: Apache-2.0
//
// How a program ends: with an exit code that scripts may rely on, and a line about the error.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "swiglu/client.h"

namespace swiglu::cli {

enum class ExitCode {
  kDone = 0,
  kBadInput = 1,     // a file, or the content of a file
  kUsage = 2,        // the command line
  kUnreachable = 3,  // there is no server, or it takes no requests
  kRefused = 4,      // the server refused or failed the call
};

// How a program ends. `error` is one line for stderr, or empty if there is no error.
struct ProgramEnd {
  ExitCode code = ExitCode::kDone;
  std::string error;
};

// How the program ends after a local error: with kBadInput.
ProgramEnd BadInput(const absl::Status& status);

// How the program ends after a failed call. After UNAVAILABLE or DEADLINE_EXCEEDED, the server may
// be overloaded or absent, so this function asks whether it is ready, for at most 2 s.
ProgramEnd CallFailed(const absl::Status& status, client::Client& client);

// kDone if the server answers and is ready. Otherwise the result says how the command should end.
ProgramEnd CheckReady(client::Client& client);

// Ends a program's work. Flushes stdout, which may fail. Prints the error on stderr, as one line
// that begins with the program's name. Returns the exit code.
int Finish(absl::string_view program, ProgramEnd end);

}  // namespace swiglu::cli
