// SPDX-License-Identifier: Apache-2.0
//
// The script is one function. Its first part, which is the same for every program, finds the flag
// whose value is being written. Its other parts are lists from the table.
#include "server/base/completion.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"

namespace swiglu::server {
namespace {

// $NAME is the program and $FUNCTION is the function that completes its arguments.
constexpr char kStart[] = R"(# Completion of $NAME for bash, as `$NAME --completion=bash` prints it.
$FUNCTION() {
  local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]}
  local flag="" prefix="" command="" words=""
  COMPREPLY=()
)";

// bash splits --name=value into three words, unless COMP_WORDBREAKS has no "=".
constexpr char kFlag[] = R"(  if [[ $word == --*=* ]]; then
    flag=${word%%=*} prefix=$flag= word=${word#*=}
  elif [[ $word == "=" ]]; then
    flag=$before word=""
  elif [[ $before == "=" ]]; then
    flag=${COMP_WORDS[COMP_CWORD - 2]}
  elif [[ $word != -* ]]; then
    case $before in
      $WITH_VALUE) flag=$before ;;
    esac
  fi
)";

constexpr char kFiles[] = R"(      compopt -o filenames 2>/dev/null
      mapfile -t COMPREPLY < <(compgen -P "$prefix" $ACTION -- "$word")
      return
      ;;
)";

constexpr char kEnd[] = R"(  if [[ -n $flag ]]; then
    mapfile -t COMPREPLY < <(compgen -P "$prefix" -W "$words" -- "$word")
    return
  fi
  mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
  # A value follows these flags.
  if [[ ${COMPREPLY[0]-} == *= ]]; then compopt -o nospace 2>/dev/null; fi
}
complete -F $FUNCTION $NAME
)";

std::string FunctionOf(absl::string_view program) {
  return absl::StrCat("_", absl::StrReplaceAll(program, {{"-", "_"}}));
}

template <typename Predicate>
std::vector<std::string> FlagsThat(const Program& program, const Predicate& is_meant) {
  std::vector<std::string> flags;
  for (const Flag& flag : program.flags) {
    if (is_meant(flag)) flags.push_back(absl::StrCat("--", flag.name));
  }
  return flags;
}

// A pattern of `case` for any of `flags`.
std::string Pattern(const std::vector<std::string>& flags) {
  return flags.empty() ? "''" : absl::StrJoin(flags, " | ");
}

// The flags of a command as they are offered: one that needs a value ends in "=".
std::string Offered(const Program& program, absl::string_view command) {
  std::vector<std::string> offered;
  for (const Flag& flag : program.flags) {
    if (!Takes(command, flag)) continue;
    offered.push_back(absl::StrCat("--", flag.name, flag.traits.implied == nullptr ? "=" : ""));
  }
  return absl::StrJoin(offered, " ");
}

// Looks for the command among the words before the one that is being written.
std::string FindCommand(const Program& program) {
  std::vector<std::string> names;
  std::string text;
  for (const Command& command : program.commands) {
    names.push_back(command.name);
    if (command.program.empty()) continue;
    const std::string other = FunctionOf(command.program);
    absl::StrAppend(&text, "  if ((COMP_CWORD > 1)) && [[ ${COMP_WORDS[1]} == ", command.name,
                    " ]]; then\n    COMP_WORDS=(", command.program,
                    " \"${COMP_WORDS[@]:2}\")\n    ((COMP_CWORD -= 1))\n    declare -F ", other,
                    " >/dev/null || _completion_loader ", command.program,
                    " 2>/dev/null\n    if declare -F ", other, " >/dev/null; then ", other,
                    "; fi\n    return\n  fi\n");
  }
  if (names.empty()) return text;
  return absl::StrCat(
      text, "  local candidate\n  for candidate in \"${COMP_WORDS[@]:1:COMP_CWORD-1}\"; do\n",
      "    case $candidate in\n      ", absl::StrJoin(names, " | "),
      ") command=$candidate ;;\n    esac\n  done\n");
}

// The values of the flag that is being written.
std::string FindValues(const Program& program) {
  std::string text = "  case $flag in\n    '') ;;\n";
  for (const Flag& flag : program.flags) {
    // A flag without a value has one word, which nobody writes.
    if (flag.set.words.empty() || (flag.set.words.size() == 1 && flag.traits.implied != nullptr)) {
      continue;
    }
    absl::StrAppend(&text, "    --", flag.name, ") words=\"", absl::StrJoin(flag.set.words, " "),
                    "\" ;;\n");
  }
  for (const auto& [kind, action] :
       {std::pair(ValueKind::kFile, "-f"), std::pair(ValueKind::kFolder, "-d")}) {
    const std::vector<std::string> flags =
        FlagsThat(program, [kind = kind](const Flag& flag) { return flag.set.kind == kind; });
    if (flags.empty()) continue;
    absl::StrAppend(&text, "    ", Pattern(flags), ")\n",
                    absl::StrReplaceAll(kFiles, {{"$ACTION", action}}));
  }
  return text + "  esac\n";
}

// The commands and flags that may come next.
std::string FindWords(const Program& program) {
  std::vector<std::string> names;
  std::string text = "  case $flag/$command in\n";
  for (const Command& command : program.commands) {
    names.push_back(command.name);
    if (!command.program.empty()) continue;
    absl::StrAppend(&text, "    /", command.name, ") words=\"", Offered(program, command.name),
                    "\" ;;\n");
  }
  absl::StrAppend(&text, "    /) words=\"", absl::StrJoin(names, " "), names.empty() ? "" : " ",
                  Offered(program, ""), "\" ;;\n");
  return text + "  esac\n";
}

}  // namespace

std::string BashCompletion(const Program& program) {
  const std::vector<std::string> with_value =
      FlagsThat(program, [](const Flag& flag) { return flag.traits.implied == nullptr; });
  const std::string script =
      absl::StrCat(kStart, FindCommand(program),
                   absl::StrReplaceAll(kFlag, {{"$WITH_VALUE", Pattern(with_value)}}),
                   FindValues(program), FindWords(program), kEnd);
  return absl::StrReplaceAll(script,
                             {{"$NAME", program.name}, {"$FUNCTION", FunctionOf(program.name)}});
}

}  // namespace swiglu::server
