// SPDX-License-Identifier: Apache-2.0
//
// The flags, which commands take them, and the walk over argv. absl's own parser is not used: it
// knows no subcommands, ends the process itself, with its own exit code, and brings flags such as
// --flagfile with it.
#include "client/cli/command_line.h"

#include <algorithm>
#include <vector>

#include "absl/flags/commandlineflag.h"
#include "absl/flags/flag.h"
#include "absl/flags/reflection.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "absl/types/optional.h"

ABSL_FLAG(std::string, server, "127.0.0.1:8001", "the server: HOST:PORT or unix:/path");
ABSL_FLAG(absl::Duration, timeout, absl::ZeroDuration(),
          "time for the call, such as 10s (default 30s, and 1s more per 100 MB)");
ABSL_FLAG(bool, json, false, "print JSON");
ABSL_FLAG(bool, overwrite, false, "replace output files that exist");
ABSL_FLAG(std::string, dw, "", "the gradient with respect to h");
ABSL_FLAG(std::string, e, "", "the gate");
ABSL_FLAG(std::string, g, "", "the up projection");
ABSL_FLAG(std::string, out, "", "the file for h");
ABSL_FLAG(std::string, out_dir, "", "the folder for h, df and de; made if it is not there");

namespace swiglu::cli {
namespace {

enum class Kind { kText, kDuration, kSwitch };

// A flag and the commands that take it.
struct FlagRule {
  absl::string_view name;
  Kind kind;
  std::vector<Command> taken_by;
  std::vector<Command> needed_by;
};

const std::vector<FlagRule>& Rules() {
  using enum Command;
  static const auto& rules = *new std::vector<FlagRule>{
      {"server", Kind::kText, {kForward, kBackward, kStatus}, {kForward, kBackward, kStatus}},
      {"timeout", Kind::kDuration, {kForward, kBackward, kStatus}, {}},
      {"json", Kind::kSwitch, {kForward, kBackward, kStatus}, {}},
      {"overwrite", Kind::kSwitch, {kForward, kBackward}, {}},
      {"dw", Kind::kText, {kBackward}, {kBackward}},
      {"e", Kind::kText, {kForward, kBackward}, {kForward, kBackward}},
      {"g", Kind::kText, {kForward, kBackward}, {kForward, kBackward}},
      {"out", Kind::kText, {kForward}, {kForward}},
      {"out_dir", Kind::kText, {kBackward}, {kBackward}}};
  return rules;
}

absl::Status Usage(absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(what, "; see swiglu --help"));
}

bool Contains(const std::vector<Command>& commands, Command command) {
  return std::find(commands.begin(), commands.end(), command) != commands.end();
}

absl::optional<Command> FindCommand(absl::string_view name) {
  if (name == "forward") return Command::kForward;
  if (name == "backward") return Command::kBackward;
  if (name == "status") return Command::kStatus;
  return absl::nullopt;
}

// The rule for `name`, which may be `noX` for a switch X; `value` is then "false".
const FlagRule* FindRule(absl::string_view name, absl::optional<std::string>& value) {
  for (const FlagRule& rule : Rules()) {
    if (rule.name == name) return &rule;
    absl::string_view positive = name;
    if (rule.kind == Kind::kSwitch && !value && absl::ConsumePrefix(&positive, "no") &&
        positive == rule.name) {
      value = "false";
      return &rule;
    }
  }
  return nullptr;
}

absl::Status SetFlag(const FlagRule& rule, absl::string_view value) {
  std::string error;
  if (!absl::FindCommandLineFlag(rule.name)->ParseFrom(value, &error)) {
    const absl::string_view expected =
        rule.kind == Kind::kDuration ? "a duration such as 10s or 500ms" : "true or false";
    return Usage(absl::StrCat("--", rule.name, " takes ", expected, ", not '", value, "'"));
  }
  return absl::OkStatus();
}

// The arguments from left to right.
class ArgumentWalk {
 public:
  ArgumentWalk(int argc, char** argv) : arguments_(argv + std::min(argc, 1), argv + argc) {}

  // Sets the flags and gives the command; kHelp and kVersion end the walk.
  absl::StatusOr<Command> Run() {
    while (next_ < arguments_.size()) {
      const absl::string_view argument = arguments_[next_++];
      if (argument == "--help" || argument == "-h") return Command::kHelp;
      if (argument == "--version") return Command::kVersion;
      const absl::Status status =
          absl::StartsWith(argument, "-") ? TakeFlag(argument) : TakeWord(argument);
      if (!status.ok()) return status;
    }
    if (!command_) return Usage("a command is missing: forward, backward or status");
    const absl::Status status = CheckFlags(*command_);
    if (!status.ok()) return status;
    return *command_;
  }

 private:
  absl::Status TakeWord(absl::string_view word) {
    if (command_) return Usage(absl::StrCat("unexpected argument '", word, "'"));
    command_ = FindCommand(word);
    return command_ ? absl::OkStatus() : Usage(absl::StrCat("unknown command '", word, "'"));
  }

  // --name=value, --name value; for switches --name, --noname.
  absl::Status TakeFlag(absl::string_view argument) {
    absl::string_view name = argument;
    if (!absl::ConsumePrefix(&name, "--")) absl::ConsumePrefix(&name, "-");
    absl::optional<std::string> value;
    const size_t equals = name.find('=');
    if (equals != absl::string_view::npos) {
      value = std::string(name.substr(equals + 1));
      name = name.substr(0, equals);
    }
    const FlagRule* rule = FindRule(name, value);
    if (rule == nullptr) return Usage(absl::StrCat("unknown flag '--", name, "'"));
    if (!value && rule->kind == Kind::kSwitch) value = "true";
    if (!value) {
      if (next_ == arguments_.size()) return Usage(absl::StrCat("--", name, " needs a value"));
      value = arguments_[next_++];
    }
    given_.push_back(rule);
    return SetFlag(*rule, *value);
  }

  absl::Status CheckFlags(Command command) {
    for (const FlagRule* rule : given_) {
      if (!Contains(rule->taken_by, command)) {
        return Usage(absl::StrCat("--", rule->name, " does not belong to this command"));
      }
    }
    for (const FlagRule& rule : Rules()) {
      if (Contains(rule.needed_by, command) &&
          absl::FindCommandLineFlag(rule.name)->CurrentValue().empty()) {
        return Usage(absl::StrCat("--", rule.name, " is missing"));
      }
    }
    const absl::Duration timeout = absl::GetFlag(FLAGS_timeout);
    const bool is_given = std::any_of(given_.begin(), given_.end(), [](const FlagRule* rule) {
      return rule->kind == Kind::kDuration;
    });
    if (is_given && (timeout <= absl::ZeroDuration() || timeout == absl::InfiniteDuration())) {
      return Usage(
          absl::StrCat("--timeout is above 0 and finite, not ", absl::FormatDuration(timeout)));
    }
    return absl::OkStatus();
  }

  const std::vector<std::string> arguments_;
  size_t next_ = 0;
  absl::optional<Command> command_;
  std::vector<const FlagRule*> given_;
};

}  // namespace

absl::StatusOr<CommandLine> ParseCommandLine(int argc, char** argv) {
  absl::StatusOr<Command> command = ArgumentWalk(argc, argv).Run();
  if (!command.ok()) return command.status();
  return CommandLine{.command = *command,
                     .server = absl::GetFlag(FLAGS_server),
                     .timeout = absl::GetFlag(FLAGS_timeout),
                     .json = absl::GetFlag(FLAGS_json),
                     .overwrite = absl::GetFlag(FLAGS_overwrite),
                     .dw = absl::GetFlag(FLAGS_dw),
                     .e = absl::GetFlag(FLAGS_e),
                     .g = absl::GetFlag(FLAGS_g),
                     .out = absl::GetFlag(FLAGS_out),
                     .out_dir = absl::GetFlag(FLAGS_out_dir)};
}

std::string HelpText() {
  std::string text =
      "SwiGLU on a swiglu-server.\n"
      "\n"
      "  swiglu forward --e FILE[:TENSOR] --g FILE[:TENSOR] --out FILE\n"
      "      h = SiLU(e) * g\n"
      "  swiglu backward --dw FILE[:TENSOR] --e FILE[:TENSOR] --g FILE[:TENSOR] --out_dir DIR\n"
      "      h, df (the gradient with respect to g) and de (that with respect to e), a file each\n"
      "  swiglu status\n"
      "      readiness, device, models and counters of the server\n"
      "\n"
      "Files are .npy (FP16, FP32) or .safetensors (FP16, BF16, FP32). :TENSOR may be left out "
      "where a\n"
      "file holds one tensor. GB/s counts the bytes of all tensors, in and out.\n"
      "\n"
      "Flags:\n";
  for (const FlagRule& rule : Rules()) {
    const absl::CommandLineFlag& flag = *absl::FindCommandLineFlag(rule.name);
    absl::StrAppend(
        &text, "  --", rule.name, std::string(11 - rule.name.size(), ' '), flag.Help(),
        rule.name == "server" ? absl::StrCat(" (default ", flag.DefaultValue(), ")") : "", "\n");
  }
  absl::StrAppend(
      &text,
      "  --version    print the version\n"
      "\n"
      "Exit codes: 0 done, 1 bad input or file, 2 usage, 3 server unreachable or not ready,\n"
      "4 the server refused or failed the call.\n");
  return text;
}

}  // namespace swiglu::cli
