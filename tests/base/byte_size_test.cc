// SPDX-License-Identifier: Apache-2.0
//
// Sizes in bytes, read and written.
#include "server/base/byte_size.h"

#include <cstdint>
#include <limits>

#include "gtest/gtest.h"

namespace swiglu::server {
namespace {

TEST(ByteSizeTest, ReadsNumbersAndUnits) {
  EXPECT_EQ(ParseByteSize("0"), 0);
  EXPECT_EQ(ParseByteSize("1024"), 1024);
  EXPECT_EQ(ParseByteSize("3KiB"), 3072);
  EXPECT_EQ(ParseByteSize("64MiB"), 67108864);
  EXPECT_EQ(ParseByteSize("2GiB"), 2147483648);
  EXPECT_EQ(ParseByteSize("1TiB"), 1099511627776);
  EXPECT_EQ(ParseByteSize("9223372036854775807"), std::numeric_limits<int64_t>::max());
  EXPECT_EQ(ParseByteSize("8388607TiB"), int64_t{8388607} << 40);
}

TEST(ByteSizeTest, RefusesEverythingElse) {
  for (const char* text :
       {"", "KiB", "-1", "+1", " 1", "1 ", "1 KiB", "1kib", "1K", "1MB", "1.5GiB", "0x10", "1e6",
        "GiB2", "9223372036854775808", "8388608TiB", "1KiBKiB"}) {
    EXPECT_FALSE(ParseByteSize(text).has_value()) << text;
  }
}

TEST(ByteSizeTest, WritesWhatItReadsBack) {
  EXPECT_EQ(FormatByteSize(0), "0");
  EXPECT_EQ(FormatByteSize(1023), "1023");
  EXPECT_EQ(FormatByteSize(1024), "1KiB");
  EXPECT_EQ(FormatByteSize(1536 << 10), "1536KiB");
  EXPECT_EQ(FormatByteSize(int64_t{5} << 30), "5GiB");
}

}  // namespace
}  // namespace swiglu::server
