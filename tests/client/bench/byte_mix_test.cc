// SPDX-License-Identifier: Apache-2.0
//
// Sizes and mixes of sizes, as text and drawn at random.
#include "client/bench/byte_mix.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace swiglu::bench {
namespace {

using ::testing::HasSubstr;

TEST(ByteMixTest, RefusesWhatIsNoSize) {
  for (const char* text : {"", "1.5MiB", "64kb", "8388608TiB"}) {
    EXPECT_THAT(std::string(ParseByteMix(text).status().message()), HasSubstr("is no size"))
        << text;
  }
}

TEST(ByteMixTest, ReadsAMixAndWritesItBack) {
  const std::vector<WeightedSize> mix = ParseByteMix("64KiB*9,4MiB*1,1000").value();
  ASSERT_EQ(mix.size(), 3u);
  EXPECT_EQ(mix[0].bytes, 65536);
  EXPECT_EQ(mix[0].weight, 9);
  EXPECT_EQ(mix[1].bytes, 4194304);
  EXPECT_EQ(mix[1].weight, 1);
  EXPECT_EQ(mix[2].bytes, 1000);
  EXPECT_EQ(mix[2].weight, 1);
  EXPECT_EQ(FormatByteMix(mix), "64KiB*9,4MiB,1000");
}

TEST(ByteMixTest, RefusesAMixWithABadPart) {
  for (const char* text :
       {"", "64KiB,", "64KiB*0", "64KiB*", "64KiB*-1", "64KiB*1.5", "64KiB*2*3"}) {
    EXPECT_FALSE(ParseByteMix(text).ok()) << text;
  }
}

TEST(SizePickerTest, DrawsSizesByWeightAndAlikeForOneSeed) {
  const std::vector<WeightedSize> mix = ParseByteMix("1KiB*9,2KiB*1").value();
  SizePicker picker(mix, 7), same(mix, 7);
  int num_large = 0;
  for (int i = 0; i < 10'000; ++i) {
    const size_t picked = picker.Pick();
    EXPECT_EQ(same.Pick(), picked);
    num_large += picked == 1 ? 1 : 0;
  }
  EXPECT_NEAR(num_large, 1000, 100);
}

}  // namespace
}  // namespace swiglu::bench
