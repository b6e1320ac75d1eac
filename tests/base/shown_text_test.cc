// SPDX-License-Identifier: Apache-2.0
//
// Which characters are hidden, and what stands for them.
#include "server/base/shown_text.h"

#include <string>

#include "gtest/gtest.h"

namespace swiglu::server {
namespace {

constexpr size_t kPlenty = 1000;

TEST(ShownTextTest, WhatCanBeSeenStaysAsItIs) {
  for (const std::string text :
       {"", "a b", "'\"\\=", "\xC3\xA9", "\xE2\x82\xAC", "\xF0\x9F\x98\x80",
        "\xD7\xA9\xD7\x9C\xD7\x95\xD7\x9D", "\xC2\xA0"}) {
    EXPECT_EQ(ShownText(text, kPlenty), text);
  }
}

TEST(ShownTextTest, ControlCharactersAreEscaped) {
  EXPECT_EQ(ShownText(std::string("\0\n\r\t\x1F\x7F\xC2\x80\xC2\x9F", 10), kPlenty),
            "\\u0000\\n\\r\\t\\u001f\\u007f\\u0080\\u009f");
}

TEST(ShownTextTest, CharactersThatTurnTheDirectionAreEscaped) {
  EXPECT_EQ(ShownText("a\xE2\x80\xAE"
                      "b\xE2\x80\xAA\xE2\x81\xA6\xE2\x81\xA9\xD8\x9C\xE2\x80\x8F",
                      kPlenty),
            "a\\u202eb\\u202a\\u2066\\u2069\\u061c\\u200f");
}

TEST(ShownTextTest, CharactersWithoutWidthAreEscaped) {
  EXPECT_EQ(
      ShownText("\xE2\x80\x8B\xE2\x80\x8D\xEF\xBB\xBF\xC2\xAD\xE3\x85\xA4\xEF\xB8\x8F", kPlenty),
      "\\u200b\\u200d\\ufeff\\u00ad\\u3164\\ufe0f");
}

TEST(ShownTextTest, SeparatorsOfLinesAreEscaped) {
  EXPECT_EQ(ShownText("\xE2\x80\xA8\xE2\x80\xA9", kPlenty), "\\u2028\\u2029");
}

TEST(ShownTextTest, HiddenCharactersPastTheFirstPlaneAreEscaped) {
  EXPECT_EQ(ShownText("\xF3\xA0\x81\x81\xF4\x8F\xBF\xBF", kPlenty), "\\U000e0041\\U0010ffff");
}

TEST(ShownTextTest, NeighboursOfHiddenCharactersAreSeen) {
  for (const char32_t code : {0x20, 0x7E, 0xA0, 0xAC, 0xAE, 0x200A, 0x2010, 0x2027, 0x202F, 0x205F,
                              0x2070, 0xFEFE, 0xFF00, 0xFFFC, 0xFFFD, 0xE1000, 0x10FFFD}) {
    EXPECT_FALSE(IsHidden(code)) << std::hex << static_cast<uint32_t>(code);
  }
  for (const char32_t code :
       {0x00, 0x1F, 0x7F, 0x9F, 0xAD, 0x200B, 0x200F, 0x2028, 0x202E, 0x2060, 0x206F, 0xFEFF,
        0xFFFB, 0xFFFE, 0xE0000, 0xE0FFF, 0x10FFFE, 0x10FFFF}) {
    EXPECT_TRUE(IsHidden(code)) << std::hex << static_cast<uint32_t>(code);
  }
}

TEST(ShownTextTest, InvalidUtf8IsReplacedByteByByte) {
  const std::string replacement(kReplacement);
  // A lone continuation, an overlong form, a surrogate, past U+10FFFF, cut short.
  EXPECT_EQ(ShownText("a\x80z", kPlenty), "a" + replacement + "z");
  for (const std::string text : {"\xC0\xAF", "\xC1\xBF"})
    EXPECT_EQ(ShownText(text, kPlenty), replacement + replacement);
  for (const std::string text : {"\xE0\x9F\xBF", "\xED\xA0\x80", "\xED\xBF\xBF"}) {
    EXPECT_EQ(ShownText(text, kPlenty), replacement + replacement + replacement);
  }
  for (const std::string text : {"\xF0\x8F\xBF\xBF", "\xF4\x90\x80\x80", "\xF5\x80\x80\x80"}) {
    EXPECT_EQ(ShownText(text, kPlenty), replacement + replacement + replacement + replacement);
  }
  EXPECT_EQ(ShownText("\xE2\x82", kPlenty), replacement + replacement);
  EXPECT_EQ(ShownText("\xE2\x82z", kPlenty), replacement + replacement + "z");
}

TEST(ShownTextTest, LongTextIsCutBetweenCharacters) {
  EXPECT_EQ(ShownText("abcd", 4), "abcd");
  EXPECT_EQ(ShownText("abcde", 4), "abcd...");
  EXPECT_EQ(ShownText("abc\xC3\xA9", 4), "abc...");
  // Counted as it is shown.
  EXPECT_EQ(ShownText("\n\n\n", 4), "\\n\\n...");
}

}  // namespace
}  // namespace swiglu::server
