// SPDX-License-Identifier: Apache-2.0
//
// Finds the program beside this one, and runs it in its place.
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <string>
#include <system_error>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/cli/commands.h"

namespace swiglu::cli {

ProgramEnd RunBench(char* const* arguments) {
  std::error_code error;
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", error);
  if (error) {
    return {ExitCode::kBadInput,
            absl::StrCat("cannot find this program's folder: /proc/self/exe: ", error.message())};
  }
  std::string name = "swiglu-bench";
  const std::string program = self.parent_path() / name;
  std::vector<char*> argv = {name.data()};
  do {
    argv.push_back(const_cast<char*>(*arguments));
  } while (*arguments++ != nullptr);
  ::execv(program.c_str(), argv.data());
  return {ExitCode::kBadInput,
          absl::StrCat("cannot run ", program, ": ", std::strerror(errno),
                       "; the load generator is installed with the component 'tools'")};
}

}  // namespace swiglu::cli
