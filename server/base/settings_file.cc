// SPDX-License-Identifier: Apache-2.0
//
// Splits a file of settings into lines, and each line into a name and a value.
#include "server/base/settings_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <optional>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "server/base/descriptor.h"
#include "server/base/shown_text.h"

namespace swiglu::server {
namespace {

// The line as error messages show it.
std::string ShownLine(absl::string_view line) {
  constexpr size_t kMaxLineBytes = 200;
  return ShownText({line.data(), line.size()}, kMaxLineBytes);
}

absl::Status CannotRead() {
  return absl::InvalidArgumentError(absl::StrCat("cannot read: ", std::strerror(errno)));
}

absl::StatusOr<std::string> ReadText(const std::string& path) {
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.get() < 0) return CannotRead();
  std::string text(kMaxSettingsBytes + 1, '\0');
  size_t size = 0;
  while (size < text.size()) {
    const ssize_t num_read = ::read(file.get(), text.data() + size, text.size() - size);
    if (num_read < 0 && errno == EINTR) continue;
    if (num_read < 0) return CannotRead();
    if (num_read == 0) break;
    size += static_cast<size_t>(num_read);
  }
  if (size == text.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("a file of settings has at most ", kMaxSettingsBytes, " bytes"));
  }
  text.resize(size);
  return text;
}

// The offset at which a comment begins in `text`, or the size of `text`.
size_t CommentBegin(absl::string_view text) {
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '#' && (i == 0 || absl::ascii_isspace(text[i - 1]))) return i;
  }
  return text.size();
}

// The value in the text after the `=`. nullopt if a quote is not closed or more text follows it.
std::optional<std::string> ValueOf(absl::string_view text) {
  text = absl::StripLeadingAsciiWhitespace(text);
  if (text.empty() || (text[0] != '"' && text[0] != '\'')) {
    return std::string(absl::StripTrailingAsciiWhitespace(text.substr(0, CommentBegin(text))));
  }
  const size_t end = text.find(text[0], 1);
  if (end == absl::string_view::npos) return std::nullopt;
  const absl::string_view rest = text.substr(end + 1);
  if (!absl::StripAsciiWhitespace(rest.substr(0, CommentBegin(rest))).empty()) return std::nullopt;
  return std::string(text.substr(1, end - 1));
}

}  // namespace

absl::StatusOr<std::vector<Setting>> ReadSettings(const std::string& path) {
  const absl::StatusOr<std::string> text = ReadText(path);
  if (!text.ok()) return text.status();
  std::vector<Setting> settings;
  int number = 0;
  for (absl::string_view line : absl::StrSplit(*text, '\n')) {
    ++number;
    line = absl::StripAsciiWhitespace(line);
    if (CommentBegin(line) == 0) continue;
    const size_t equals = line.find('=');
    const std::optional<std::string> value =
        equals == absl::string_view::npos ? std::nullopt : ValueOf(line.substr(equals + 1));
    if (!value.has_value()) {
      return absl::InvalidArgumentError(
          absl::StrCat("line ", number, ": want NAME = VALUE, not '", ShownLine(line), "'"));
    }
    settings.push_back(
        {std::string(absl::StripTrailingAsciiWhitespace(line.substr(0, equals))), *value});
  }
  return settings;
}

}  // namespace swiglu::server
