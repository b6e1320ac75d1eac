// SPDX-License-Identifier: Apache-2.0
//
// Makes text from outside the server safe to show to people in the log and in errors.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace swiglu::server {

// The first character of a text.
struct Character {
  size_t num_bytes = 0;  // 0: the text does not begin with valid UTF-8
  char32_t code = 0;
};

// REQUIRES: `text` is not empty.
Character FirstCharacter(std::string_view text);

// Whether a character is hidden: invisible, although it may change how a line looks. Hidden are
// control characters, line and paragraph separators, Unicode's format characters (some of them
// reverse the direction of text), characters that Unicode ignores by default (such as spaces
// without width), and noncharacters.
bool IsHidden(char32_t code);

// U+FFFD, which replaces a byte that is not valid UTF-8.
inline constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

// `text` as valid UTF-8 without hidden characters. Hidden characters are escaped (`\n`, `\u202e`,
// `\U000e0041`), and bytes that are not UTF-8 are replaced. If the result is longer than
// `max_bytes`, it is cut and "..." is appended.
std::string ShownText(std::string_view text, size_t max_bytes);

// The escape that ShownText writes for a hidden character.
std::string EscapeHidden(char32_t code);

}  // namespace swiglu::server
