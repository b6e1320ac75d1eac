// SPDX-License-Identifier: Apache-2.0
//
// The usual sections of a page, with a paragraph for each command and each flag.
#include "server/base/manual_page.h"

#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"

namespace swiglu::server {
namespace {

// `text` as roff shows it, character for character.
std::string Roff(absl::string_view text) {
  // A point at the begin of a line would make it a command.
  const char* const start = absl::StartsWith(text, ".") ? "\\&" : "";
  return absl::StrCat(start, absl::StrReplaceAll(text, {{"\\", "\\e"},
                                                        {"-", "\\-"},
                                                        {"'", "\\(aq"},
                                                        {"`", "\\(ga"},
                                                        {"^", "\\(ha"},
                                                        {"~", "\\(ti"},
                                                        {"\n.", "\n\\&."}}));
}

std::string Bold(absl::string_view text) { return absl::StrCat("\\fB", Roff(text), "\\fR"); }

std::string Italic(absl::string_view text) { return absl::StrCat("\\fI", Roff(text), "\\fR"); }

// Free text: an empty line begins a paragraph.
std::string Paragraphs(absl::string_view text) {
  std::vector<std::string> paragraphs;
  for (const absl::string_view paragraph :
       absl::StrSplit(absl::StripAsciiWhitespace(text), "\n\n")) {
    paragraphs.push_back(absl::StrCat(Roff(paragraph), "\n"));
  }
  return absl::StrJoin(paragraphs, ".PP\n");
}

std::string Synopsis(const Program& program) {
  std::string text = ".SH SYNOPSIS\n";
  if (program.commands.empty()) {
    return absl::StrCat(text, Bold(program.name), " [", Bold("--"), Italic("FLAG"), "=",
                        Italic("VALUE"), "]...\n");
  }
  for (const Command& command : program.commands) {
    absl::StrAppend(&text, &command == &program.commands.front() ? "" : ".br\n",
                    Bold(absl::StrCat(program.name, " ", command.name)),
                    command.usage.empty() ? "" : " ", Roff(command.usage), "\n");
  }
  return text;
}

std::string Commands(const Program& program) {
  if (program.commands.empty()) return "";
  std::string text = ".SH COMMANDS\n";
  for (const Command& command : program.commands) {
    absl::StrAppend(&text, ".TP\n", Bold(command.name), "\n", Roff(command.help), "\n");
  }
  return text;
}

std::string OneFlag(const Flag& flag) {
  const FlagTraits& traits = flag.traits;
  std::string text = absl::StrCat(".TP\n", Bold(absl::StrCat("--", flag.name)));
  const std::string value = absl::StrCat("=", Italic("VALUE"));
  if (traits.implied == nullptr) absl::StrAppend(&text, value);
  if (traits.implied != nullptr && !traits.ends_reading) absl::StrAppend(&text, "[", value, "]");
  absl::StrAppend(&text, "\n", Roff(flag.help), "\n");
  if (!traits.ends_reading) {
    absl::StrAppend(&text, ".br\nTakes ", Roff(flag.valid), ".\n");
    if (!flag.default_text.empty() && !traits.has_default_of_machine) {
      absl::StrAppend(&text, "Default: ", Bold(flag.default_text), ".\n");
    }
  }
  if (!traits.commands.empty()) {
    absl::StrAppend(&text, "Belongs to ", Roff(absl::StrJoin(traits.commands, ", ")), ".\n");
  }
  return text;
}

}  // namespace

std::string ManualPage(const Program& program, const Manual& manual) {
  const std::string title = absl::AsciiStrToUpper(program.name);
  std::string text =
      absl::StrCat(".TH ", Roff(title), " ", manual.section, " \"\" \"", Roff(manual.version),
                   "\"\n.ad l\n.nh\n.SH NAME\n", Roff(program.name), " \\- ", Roff(manual.summary),
                   "\n", Synopsis(program), ".SH DESCRIPTION\n", Paragraphs(program.about),
                   Commands(program), ".SH OPTIONS\n");
  for (const Flag& flag : program.flags) absl::StrAppend(&text, OneFlag(flag));
  absl::StrAppend(&text, ".SH NOTES\n", Paragraphs(program.notes), ".SH SEE ALSO\n",
                  Roff(absl::StrJoin(manual.see_also, ", ")), "\n");
  return text;
}

}  // namespace swiglu::server
