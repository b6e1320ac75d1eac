// SPDX-License-Identifier: Apache-2.0
//
// The command lines of the programs. A program describes its flags in one table. With that table,
// the functions here read the program's arguments, its environment and its configuration file. They
// also make the error messages and the text of --help.
#pragma once

#include <functional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace swiglu::server {

// What the values of a flag name.
enum class ValueKind { kText, kFile, kFolder };

// Reads the values of a flag, and knows what a shell can offer as values. `read` stores the value
// of a text. It returns false if the text is not valid; any value may be stored then.
struct ReadValue {
  // A function that reads is a ReadValue.
  template <typename Read,
            typename = std::enable_if_t<std::is_invocable_r_v<bool, Read, absl::string_view>>>
  ReadValue(Read reader) : read(std::move(reader)) {}  // NOLINT(google-explicit-constructor)

  bool operator()(absl::string_view text) const { return read(text); }

  std::function<bool(absl::string_view text)> read;
  std::vector<std::string> words = {};  // every valid value, if these are a few words
  ValueKind kind = ValueKind::kText;
};

// Traits that only a few flags need, in addition to the fields of `Flag`.
struct FlagTraits {
  // The flag's value if it is given without a value. Such a flag takes a value only as
  // `--name=value`, not as `--name value`. nullptr: the flag needs a value.
  const char* implied = nullptr;
  const char* short_name = "";             // a second name, followed by a comma, such as "-h,"
  bool is_required = false;                // its value must not be empty
  bool ends_reading = false;               // later arguments are not read
  bool is_argument_only = false;           // neither the environment nor a file may set it
  bool has_default_of_machine = false;     // other machines have another default
  std::vector<std::string> commands = {};  // which commands take it; empty: all
  std::vector<std::string> optional = {};  // which of these do not need it, if it is required
};

// One flag of a program.
struct Flag {
  std::string name;
  std::string default_text;  // the value that SetDefaults sets; empty: no default
  std::string help;
  std::string valid;  // describes the valid values; errors put it after "want" or "takes"
  ReadValue set;
  FlagTraits traits = {};
};

// An argument that says what the program is to do, such as `forward`.
struct Command {
  std::string name;
  std::string usage;  // the flags that it needs
  std::string help;
  std::string program = "";  // another program, which reads all arguments after the command
};

enum class Wording {
  kWant,   // --connections=0: want a number from 1 to 9
  kTakes,  // --connections takes 1 to 9, not '0'; see PROGRAM --help
};

// What the functions below need to know about a program.
struct Program {
  std::string name;
  Wording wording = Wording::kWant;
  std::string about = "";              // the first lines of --help
  std::string notes = "";              // the last lines of --help
  std::vector<Command> commands = {};  // the user must give one of them; empty: no commands
  std::vector<Flag> flags = {};        // in the order in which --help lists them
};

// Whether the command of that name takes `flag`. For no name: whether every command does.
bool Takes(absl::string_view command, const Flag& flag);

// Sets every flag to its default.
void SetDefaults(const Program& program);

// Sets the flags that the arguments give, as `--name=value` or `--name value`. If a flag is
// repeated, its last value counts. Returns the name of the command, or "" if there is none. If an
// argument is wrong, returns INVALID_ARGUMENT with one line that names it and says what is valid.
// The flags may then have any values.
absl::StatusOr<std::string> ReadArguments(const Program& program, int argc,
                                          const char* const* argv);

// Like getenv: returns the value of a variable, or nullptr.
using Environment = std::function<const char*(const char*)>;

// Sets the flags that the environment gives: `PREFIX_IO_THREADS` sets `--io_threads`. Ignores other
// variables. Returns INVALID_ARGUMENT, which names the variable, for a bad value.
absl::Status ReadEnvironment(const Program& program, absl::string_view prefix,
                             const Environment& environment);

// Sets the flags that a file of settings gives (settings_file.h). Returns INVALID_ARGUMENT, which
// names the file, if ReadSettings fails, or if a name or a value in the file is wrong.
absl::Status ReadConfigFile(const Program& program, const std::string& path);

// What --help prints for `command`, or for the whole program if `command` is empty.
std::string HelpText(const Program& program, absl::string_view command);

}  // namespace swiglu::server
