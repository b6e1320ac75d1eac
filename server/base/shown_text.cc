// SPDX-License-Identifier: Apache-2.0
//
// A table of the hidden characters, and a decoder of UTF-8.
#include "server/base/shown_text.h"

#include <algorithm>
#include <iterator>

#include "absl/strings/str_format.h"

namespace swiglu::server {
namespace {

struct Range {
  char32_t first;
  char32_t last;
};

// In ascending order. From Unicode 15: the general categories Cc, Cf, Zl and Zp, the property
// Default_Ignorable_Code_Point, and the noncharacters.
constexpr Range kHidden[] = {
    {0x0000, 0x001F},     {0x007F, 0x009F},   {0x00AD, 0x00AD},   {0x034F, 0x034F},
    {0x0600, 0x0605},     {0x061C, 0x061C},   {0x06DD, 0x06DD},   {0x070F, 0x070F},
    {0x0890, 0x0891},     {0x08E2, 0x08E2},   {0x115F, 0x1160},   {0x17B4, 0x17B5},
    {0x180B, 0x180F},     {0x200B, 0x200F},   {0x2028, 0x202E},   {0x2060, 0x206F},
    {0x3164, 0x3164},     {0xFDD0, 0xFDEF},   {0xFE00, 0xFE0F},   {0xFEFF, 0xFEFF},
    {0xFFA0, 0xFFA0},     {0xFFF0, 0xFFFB},   {0xFFFE, 0xFFFF},   {0x110BD, 0x110BD},
    {0x110CD, 0x110CD},   {0x13430, 0x1343F}, {0x1BCA0, 0x1BCA3}, {0x1D173, 0x1D17A},
    {0x1FFFE, 0x1FFFF},   {0x2FFFE, 0x2FFFF}, {0x3FFFE, 0x3FFFF}, {0x4FFFE, 0x4FFFF},
    {0x5FFFE, 0x5FFFF},   {0x6FFFE, 0x6FFFF}, {0x7FFFE, 0x7FFFF}, {0x8FFFE, 0x8FFFF},
    {0x9FFFE, 0x9FFFF},   {0xAFFFE, 0xAFFFF}, {0xBFFFE, 0xBFFFF}, {0xCFFFE, 0xCFFFF},
    {0xDFFFE, 0xDFFFF},   {0xE0000, 0xE0FFF}, {0xEFFFE, 0xEFFFF}, {0xFFFFE, 0xFFFFF},
    {0x10FFFE, 0x10FFFF},
};

}  // namespace

Character FirstCharacter(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char first = byte(0);
  if (first < 0x80) return {1, first};
  const size_t num_bytes = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
  if (first < 0xC2 || first > 0xF4 || text.size() < num_bytes) return {};
  char32_t code = first & (0x7Fu >> num_bytes);
  for (size_t i = 1; i < num_bytes; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return {};
    code = code << 6 | (byte(i) & 0x3Fu);
  }
  // Rejects overlong forms, surrogates and codes above U+10FFFF.
  constexpr char32_t kSmallest[] = {0, 0, 0x80, 0x800, 0x10000};
  if (code < kSmallest[num_bytes] || (code >= 0xD800 && code <= 0xDFFF) || code > 0x10FFFF) {
    return {};
  }
  return {num_bytes, code};
}

bool IsHidden(char32_t code) {
  const Range* range = std::partition_point(std::begin(kHidden), std::end(kHidden),
                                            [code](const Range& each) { return each.last < code; });
  return range != std::end(kHidden) && code >= range->first;
}

std::string EscapeHidden(char32_t code) {
  switch (code) {
    case '\n':
      return "\\n";
    case '\r':
      return "\\r";
    case '\t':
      return "\\t";
    default:
      const auto number = static_cast<uint32_t>(code);
      return number > 0xFFFF ? absl::StrFormat("\\U%08x", number)
                             : absl::StrFormat("\\u%04x", number);
  }
}

std::string ShownText(std::string_view text, size_t max_bytes) {
  std::string shown;
  while (!text.empty()) {
    const Character character = FirstCharacter(text);
    const size_t num_bytes = std::max<size_t>(character.num_bytes, 1);
    const std::string piece = character.num_bytes == 0   ? std::string(kReplacement)
                              : IsHidden(character.code) ? EscapeHidden(character.code)
                                                         : std::string(text.substr(0, num_bytes));
    if (shown.size() + piece.size() > max_bytes) return shown + "...";
    shown += piece;
    text.remove_prefix(num_bytes);
  }
  return shown;
}

}  // namespace swiglu::server
