// SPDX-License-Identifier: Apache-2.0
//
// CLI11 parses the arguments. The code here makes the error messages and the help from the table of
// flags. It does not use CLI11's subcommands, because they swallow the arguments `--` and `++`.
// Instead, the command is the one argument that is not a flag.
#include "server/base/command_line.h"

#include <algorithm>
#include <exception>
#include <map>

#include "CLI/CLI.hpp"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "server/base/settings_file.h"
#include "server/base/shown_text.h"

namespace swiglu::server {
namespace {

// CLI11 2.1 takes `--name=` for `--name`. So every argument with a value gets this suffix, and no
// value is empty. No argument of a process can contain the suffix.
constexpr absl::string_view kValueEnd("\0", 1);

std::string WithoutEnd(absl::string_view text) {
  return std::string(absl::StripSuffix(text, kValueEnd));
}

bool HasWord(const std::vector<std::string>& words, absl::string_view word) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

// Whether a value of `flag` must be given to the command of that name.
bool Needs(absl::string_view command, const Flag& flag) {
  return flag.traits.is_required && Takes(command, flag) && !HasWord(flag.traits.optional, command);
}

bool IsSetting(const Flag& flag) { return !flag.traits.is_argument_only; }

const Flag* FindFlag(const Program& program, absl::string_view name) {
  const auto found = std::find_if(program.flags.begin(), program.flags.end(),
                                  [name](const Flag& flag) { return flag.name == name; });
  return found == program.flags.end() ? nullptr : &*found;
}

template <typename Predicate>
std::vector<std::string> NamesOfFlags(const Program& program, const Predicate& is_meant) {
  std::vector<std::string> names;
  for (const Flag& flag : program.flags) {
    if (is_meant(flag)) names.push_back(flag.name);
  }
  return names;
}

// A text from the user, on one line and cut to a bounded length.
std::string Shown(absl::string_view text) {
  constexpr size_t kMaxShownBytes = 200;
  return ShownText({text.data(), text.size()}, kMaxShownBytes);
}

// The number of characters that are missing, surplus, wrong or swapped with their neighbour.
size_t NumMistakes(absl::string_view a, absl::string_view b) {
  std::vector<std::vector<size_t>> of(a.size() + 1, std::vector<size_t>(b.size() + 1));
  for (size_t i = 0; i <= a.size(); ++i) {
    for (size_t j = 0; j <= b.size(); ++j) {
      of[i][j] = i + j;
      if (i == 0 || j == 0) continue;
      const size_t wrong = a[i - 1] == b[j - 1] ? 0 : 1;
      of[i][j] = std::min({of[i - 1][j] + 1, of[i][j - 1] + 1, of[i - 1][j - 1] + wrong});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        of[i][j] = std::min(of[i][j], of[i - 2][j - 2] + 1);
      }
    }
  }
  return of[a.size()][b.size()];
}

// The name that `written` was probably meant to be: the one with the fewest mistakes, if it has at
// most one mistake for every four characters. "" if there is none.
std::string Meant(absl::string_view written, const std::vector<std::string>& names) {
  constexpr size_t kMaxLength = 64;
  std::string nearest;
  size_t fewest = kMaxLength;
  for (const std::string& name : names) {
    const size_t length = std::max(written.size(), name.size());
    if (length > kMaxLength) continue;
    const size_t num_mistakes = NumMistakes(written, name);
    if (num_mistakes >= fewest || num_mistakes > length / 4) continue;
    nearest = name;
    fewest = num_mistakes;
  }
  return nearest;
}

absl::Status SeeHelp(const Program& program, absl::string_view what) {
  return absl::InvalidArgumentError(program.wording == Wording::kWant
                                        ? absl::StrCat(what, ", see --help")
                                        : absl::StrCat(what, "; see ", program.name, " --help"));
}

// Sets a flag. `name` is its name in the source of the value, as errors show it.
absl::Status Set(const Program& program, const Flag& flag, absl::string_view name,
                 absl::string_view value) {
  if (flag.set(value)) return absl::OkStatus();
  const std::string shown = Shown(value);
  if (program.wording == Wording::kWant) {
    return absl::InvalidArgumentError(absl::StrCat(name, "=", shown, ": want ", flag.valid));
  }
  return SeeHelp(program, absl::StrCat(name, " takes ", flag.valid, ", not '", shown, "'"));
}

absl::Status NoValue(const Program& program, const Flag& flag) {
  const std::string what = absl::StrCat("--", flag.name, " needs a value");
  if (program.wording == Wording::kTakes) return SeeHelp(program, what);
  return absl::InvalidArgumentError(absl::StrCat(what, ": want ", flag.valid));
}

absl::Status DidYouMean(const Program& program, absl::string_view what, absl::string_view meant) {
  return absl::InvalidArgumentError(absl::StrCat(
      what, ", did you mean '", meant, "'? See ",
      program.wording == Wording::kWant ? "" : absl::StrCat(program.name, " "), "--help"));
}

// The error for an unknown `name`. Suggests the similar one of `names`, if there is one.
absl::Status Unknown(const Program& program, absl::string_view what, absl::string_view dashes,
                     absl::string_view name, const std::vector<std::string>& names) {
  const std::string sentence = absl::StrCat(what, " '", dashes, Shown(name), "'");
  const std::string meant = Meant(name, names);
  if (meant.empty()) return SeeHelp(program, sentence);
  return DidYouMean(program, sentence, absl::StrCat(dashes, meant));
}

// What CLI11 has found in the arguments.
struct Found {
  absl::Status status;  // an error if a flag has a bad value or none
  std::string command;
  std::map<std::string, std::string> values;  // by the flag's name; the last value counts
  std::vector<std::string> others;            // arguments that are neither flag nor command
  bool has_ended = false;                     // whether a flag ended the reading
};

// Makes CLI11 set `flag` each time it finds the flag in the arguments.
void AddFlag(const Program& program, const Flag& flag, Found& found, CLI::App& app) {
  const auto set = [&](const CLI::results_t& results) {
    const bool is_implied =
        flag.traits.implied != nullptr && !absl::EndsWith(results.front(), kValueEnd);
    const std::string value = is_implied ? flag.traits.implied : WithoutEnd(results.front());
    found.status = Set(program, flag, absl::StrCat("--", flag.name), value);
    found.values[flag.name] = value;
    found.has_ended = flag.traits.ends_reading;
    return found.status.ok() && !found.has_ended;
  };
  CLI::Option* const option =
      app.add_option(absl::StrCat(flag.traits.short_name, "--", flag.name), set);
  option->trigger_on_parse();
  if (flag.traits.implied != nullptr) option->expected(0);
}

// The arguments as CLI11 takes them: without the program's name, and the last one first.
std::vector<std::string> ForCli11(int argc, const char* const* argv) {
  std::vector<std::string> arguments;
  for (int i = argc - 1; i >= 1; --i) {
    arguments.emplace_back(argv[i]);
    if (absl::StrContains(argv[i], '=')) absl::StrAppend(&arguments.back(), kValueEnd);
  }
  return arguments;
}

// Sets the flags in the order of the arguments, up to the first bad value.
Found Walk(const Program& program, int argc, const char* const* argv) {
  Found found;
  CLI::App app;
  app.set_help_flag();  // CLI11 adds no --help of its own
  app.allow_extras();
  CLI::Option* command = nullptr;
  if (!program.commands.empty()) {
    command = app.add_option("command", [](const CLI::results_t&) { return true; });
  }
  for (const Flag& flag : program.flags) AddFlag(program, flag, found, app);
  try {
    app.parse(ForCli11(argc, argv));
  } catch (const std::exception& error) {
    // If no flag had a bad value or ended the reading, the last flag lacks its value.
    if (found.status.ok() && !found.has_ended) {
      const Flag* const last = FindFlag(program, absl::StripPrefix(argv[argc - 1], "--"));
      found.status = last != nullptr ? NoValue(program, *last) : SeeHelp(program, error.what());
    }
  }
  if (command != nullptr && command->count() > 0) {
    found.command = WithoutEnd(command->results().front());
  }
  for (const std::string& other : app.remaining()) found.others.push_back(WithoutEnd(other));
  return found;
}

// Runs before CheckCommand, because the value of an unknown flag looks like a command.
absl::Status CheckUnknownFlags(const Program& program, const Found& found) {
  for (absl::string_view other : found.others) {
    if (other == "--") return absl::OkStatus();  // CheckOthers reports it
    if (!absl::ConsumePrefix(&other, "--")) continue;
    return Unknown(program, "unknown flag", "--", other.substr(0, other.find('=')),
                   NamesOfFlags(program, [](const Flag&) { return true; }));
  }
  return absl::OkStatus();
}

absl::Status CheckOthers(const Program& program, const Found& found) {
  if (found.others.empty()) return absl::OkStatus();
  absl::string_view other = found.others.front();
  const std::string sentence = absl::StrCat("unexpected argument '", Shown(other), "'");
  absl::ConsumePrefix(&other, "-");
  const Flag* const meant = FindFlag(program, other.substr(0, other.find('=')));
  if (meant != nullptr) return DidYouMean(program, sentence, absl::StrCat("--", meant->name));
  return SeeHelp(
      program,
      absl::StrCat(sentence, program.wording == Wording::kWant ? ": only flags are taken" : ""));
}

absl::Status CheckCommand(const Program& program, const Found& found) {
  std::vector<std::string> names;
  for (const Command& command : program.commands) names.push_back(command.name);
  const bool is_known = std::find(names.begin(), names.end(), found.command) != names.end();
  if (is_known || names.empty()) return absl::OkStatus();
  if (!found.command.empty()) return Unknown(program, "unknown command", "", found.command, names);
  return SeeHelp(program, absl::StrCat("a command is missing: ",
                                       absl::StrJoin(names.begin(), names.end() - 1, ", "), " or ",
                                       names.back()));
}

absl::Status CheckFlags(const Program& program, const Found& found) {
  for (const Flag& flag : program.flags) {
    const auto given = found.values.find(flag.name);
    const bool is_given = given != found.values.end();
    if (is_given && !Takes(found.command, flag)) {
      return SeeHelp(program, absl::StrCat("--", flag.name, " does not belong to this command"));
    }
    if (Needs(found.command, flag) && (is_given ? given->second : flag.default_text).empty()) {
      return SeeHelp(program, absl::StrCat("--", flag.name, " is missing"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

bool Takes(absl::string_view command, const Flag& flag) {
  return flag.traits.commands.empty() || HasWord(flag.traits.commands, command);
}

void SetDefaults(const Program& program) {
  for (const Flag& flag : program.flags) {
    if (!flag.default_text.empty()) flag.set(flag.default_text);
  }
}

absl::StatusOr<std::string> ReadArguments(const Program& program, int argc,
                                          const char* const* argv) {
  const Found found = Walk(program, argc, argv);
  absl::Status status = found.status;
  if (!found.has_ended) status.Update(CheckUnknownFlags(program, found));
  if (!found.has_ended || !found.command.empty()) status.Update(CheckCommand(program, found));
  if (!found.has_ended) status.Update(CheckOthers(program, found));
  if (!found.has_ended) status.Update(CheckFlags(program, found));
  if (!status.ok()) return status;
  return found.command;
}

absl::Status ReadEnvironment(const Program& program, absl::string_view prefix,
                             const Environment& environment) {
  for (const Flag& flag : program.flags) {
    const std::string name = absl::StrCat(prefix, "_", absl::AsciiStrToUpper(flag.name));
    const char* const value = IsSetting(flag) ? environment(name.c_str()) : nullptr;
    if (value == nullptr) continue;
    if (absl::Status status = Set(program, flag, name, value); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status ReadConfigFile(const Program& program, const std::string& path) {
  const std::string shown_path = Shown(path);
  const absl::StatusOr<std::vector<Setting>> settings = ReadSettings(path);
  if (!settings.ok()) {
    return absl::InvalidArgumentError(absl::StrCat(shown_path, ": ", settings.status().message()));
  }
  for (const Setting& setting : *settings) {
    const Flag* const flag = FindFlag(program, setting.name);
    if (flag == nullptr || !IsSetting(*flag)) {
      return Unknown(program, absl::StrCat(shown_path, ": unknown name"), "", setting.name,
                     NamesOfFlags(program, IsSetting));
    }
    absl::Status status =
        Set(program, *flag, absl::StrCat(shown_path, ": ", setting.name), setting.value);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

std::string HelpText(const Program& program, absl::string_view command) {
  const bool has_commands = !program.commands.empty();
  std::string text = command.empty() ? absl::StrCat(program.about, "\n") : "";
  if (!has_commands) absl::StrAppend(&text, "Usage: ", program.name, " [--FLAG=VALUE]...\n\n");
  for (const Command& one : program.commands) {
    if (!command.empty() && one.name != command) continue;
    absl::StrAppend(&text, "  ", program.name, " ", one.name, one.usage.empty() ? "" : " ",
                    one.usage, "\n      ", one.help, "\n");
  }
  const std::string of_all =
      command.empty() ? absl::StrCat(" of every command; ", program.name, " COMMAND --help has all")
                      : "";
  if (has_commands) absl::StrAppend(&text, "\nFlags", of_all, ":\n");
  for (const Flag& flag : program.flags) {
    if (!Takes(command, flag)) continue;
    absl::StrAppend(&text, "  --", flag.name, flag.default_text.empty() ? "" : "=",
                    flag.default_text, "\n      ", flag.help, "\n      (", flag.valid, ")\n");
  }
  return absl::StrCat(text, program.notes.empty() ? "" : "\n", program.notes);
}

}  // namespace swiglu::server
