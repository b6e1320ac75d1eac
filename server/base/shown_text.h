// SPDX-License-Identifier: Apache-2.0
//
// Makes text that came from outside safe to show to people, in a line of the log or in an error.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace swiglu::server {

// The character that a text begins with.
struct Character {
  size_t num_bytes = 0;  // 0: the text does not begin with valid UTF-8
  char32_t code = 0;
};

// REQUIRES: `text` is not empty.
Character FirstCharacter(std::string_view text);

// Whether a character can change how a line looks without being seen itself. Such characters are
// control characters, line and paragraph separators, Unicode's format characters (some of them turn
// the direction of text round), and characters that Unicode ignores by default, for example spaces
// without width.
bool IsHidden(char32_t code);

// Replaces a byte that is not valid UTF-8: U+FFFD.
inline constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

// `text` as valid UTF-8 without hidden characters. Hidden characters are escaped (`\n`, `\u202e`,
// `\U000e0041`), and bytes that are not UTF-8 are replaced. If the result is longer than
// `max_bytes`, it is cut and "..." appended.
std::string ShownText(std::string_view text, size_t max_bytes);

// What ShownText puts in the place of a hidden character.
std::string EscapeHidden(char32_t code);

}  // namespace swiglu::server
