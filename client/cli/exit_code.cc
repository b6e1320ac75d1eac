// SPDX-License-Identifier: Apache-2.0
//
// Finds the exit code and the error line for a status.
#include "client/cli/exit_code.h"

#include <stdio.h>

#include "absl/status/statusor.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"

namespace swiglu::cli {
namespace {

constexpr absl::Duration kProbeTimeout = absl::Seconds(2);

bool MayBeUnreachable(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status);
}

std::string Describe(const absl::Status& status) {
  return absl::StrCat(absl::StatusCodeToString(status.code()), ": ", status.message());
}

// `text` on one line. A server or a file name may have put control characters into it.
std::string OneLine(std::string text) {
  for (char& c : text) {
    if (absl::ascii_iscntrl(static_cast<unsigned char>(c))) c = ' ';
  }
  return text;
}

}  // namespace

ProgramEnd BadInput(const absl::Status& status) {
  return {ExitCode::kBadInput, std::string(status.message())};
}

ProgramEnd CallFailed(const absl::Status& status, client::Client& client) {
  ExitCode code = ExitCode::kRefused;
  if (MayBeUnreachable(status)) {
    const absl::StatusOr<bool> ready = client.ServerReady({.timeout = kProbeTimeout});
    if (!ready.ok() || !*ready) code = ExitCode::kUnreachable;
  }
  return {code, Describe(status)};
}

ProgramEnd CheckReady(client::Client& client) {
  const absl::StatusOr<bool> ready = client.ServerReady();
  if (!ready.ok()) {
    return {MayBeUnreachable(ready.status()) ? ExitCode::kUnreachable : ExitCode::kRefused,
            Describe(ready.status())};
  }
  if (!*ready) return {ExitCode::kUnreachable, "the server is not ready"};
  return {};
}

int Finish(absl::string_view program, ProgramEnd end) {
  if (fflush(stdout) != 0 && end.code == ExitCode::kDone) {
    end = {ExitCode::kBadInput, "cannot write to stdout"};
  }
  if (!end.error.empty()) {
    fputs(absl::StrCat(program, ": ", OneLine(end.error), "\n").c_str(), stderr);
  }
  return static_cast<int>(end.code);
}

}  // namespace swiglu::cli
