// SPDX-License-Identifier: Apache-2.0
//
// The command lines of the programs. A program describes its flags in one table; this reads its
// arguments, its environment and its configuration file by that table, words what is wrong with
// them, and prints the table as help.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace swiglu::server {

// Traits that only a few flags need, in addition to the fields of `Flag`.
struct FlagTraits {
  // The value of the flag if it is given without one. Such a flag takes a value as `--name=value`
  // alone, not as `--name value`. nullptr: the flag must be given a value.
  const char* implied = nullptr;
  const char* short_name = "";             // one more name with a comma behind it, such as "-h,"
  bool is_required = false;                // it needs a value that is not empty
  bool ends_reading = false;               // further arguments are not read
  bool is_argument_only = false;           // neither the environment nor a file may set it
  std::vector<std::string> commands = {};  // that take it; empty: all
};

// One flag of a program.
struct Flag {
  std::string name;
  std::string default_text;  // set before anything is read; empty: nothing is
  std::string help;
  std::string valid;  // what it takes, for people; completes "want ..." and "it takes ..."
  // Stores the value; false if it is not valid, whatever is stored then.
  std::function<bool(absl::string_view)> set;
  FlagTraits traits = {};
};

// An argument that says what the program is to do, such as `forward`.
struct Command {
  std::string name;
  std::string usage;  // the flags that it needs
  std::string help;
};

enum class Wording {
  kWant,   // --connections=0: want a number from 1 to 9
  kTakes,  // --connections takes 1 to 9, not '0'; see PROGRAM --help
};

// A program, as its command line sees it.
struct Program {
  std::string name;
  Wording wording = Wording::kWant;
  std::string about = "";              // the first lines of --help
  std::string notes = "";              // the last ones
  std::vector<Command> commands = {};  // one of them has to be given; empty: there are none
  std::vector<Flag> flags = {};        // in the order of --help
};

// Sets every flag to its default.
void SetDefaults(const Program& program);

// Sets the flags that the arguments give, as `--name=value` or `--name value`; of a repeated flag
// the last value counts. Returns the name of the command, "" if there is none. INVALID_ARGUMENT,
// with one line that names the argument and what is valid, if an argument is wrong; the flags are
// in any state then.
absl::StatusOr<std::string> ReadArguments(const Program& program, int argc,
                                          const char* const* argv);

// As getenv: the value of a variable, or nullptr.
using Environment = std::function<const char*(const char*)>;

// Sets the flags that the environment gives: `PREFIX_IO_THREADS` is `--io_threads`. Other variables
// are ignored. INVALID_ARGUMENT, naming the variable, for a bad value.
absl::Status ReadEnvironment(const Program& program, absl::string_view prefix,
                             const Environment& environment);

// Sets the flags that a file of settings gives (settings_file.h). INVALID_ARGUMENT, naming the
// file, if it cannot be read or is no such file, or has a bad value or a name that is no flag's.
absl::Status ReadConfigFile(const Program& program, const std::string& path);

// What --help prints, of the whole program or of one command.
std::string HelpText(const Program& program, absl::string_view command);

}  // namespace swiglu::server
