// SPDX-License-Identifier: Apache-2.0
//
// What a line of progress shows, and when, at times that the tests choose.
#include "client/cli/progress_bar.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

namespace swiglu::cli {
namespace {

const absl::Time kStart = absl::FromUnixSeconds(1'000'000);
constexpr char kClear[] = "\r\033[K";
constexpr int kColumns = 80;

absl::Time After(double seconds) { return kStart + absl::Seconds(seconds); }

TEST(ProgressLineTest, ShowsNothingForASecond) {
  ProgressLine line(kStart, kColumns);
  EXPECT_EQ(line.Draw({"waiting"}, kStart), "");
  EXPECT_EQ(line.Draw({"waiting", 0.5, "1 of 2 parts"}, After(0.999)), "");
  EXPECT_EQ(line.Wipe(), "");
  EXPECT_EQ(line.Draw({"waiting"}, After(1)), absl::StrCat(kClear, "waiting, 1 s"));
  EXPECT_EQ(line.Wipe(), kClear);
}

TEST(ProgressLineTest, CountsSecondsOfWorkOfUnknownLength) {
  ProgressLine line(kStart, kColumns);
  EXPECT_EQ(line.Draw({"waiting"}, After(2.9)), absl::StrCat(kClear, "waiting, 2 s"));
  EXPECT_EQ(line.Draw({"waiting"}, After(3600)), absl::StrCat(kClear, "waiting, 3600 s"));
}

TEST(ProgressLineTest, ShowsTheShareThatIsDone) {
  const std::string tenth(2, '#'), rest(18, '.'), whole(20, '#'), nothing(20, '.');
  ProgressLine line(kStart, kColumns);
  EXPECT_EQ(line.Draw({"a", 0.1, "1 of 10"}, After(2)),
            absl::StrCat(kClear, "a [", tenth, rest, "] 1 of 10"));
  EXPECT_EQ(line.Draw({"a", 0, "x"}, After(2)), absl::StrCat(kClear, "a [", nothing, "] x"));
  EXPECT_EQ(line.Draw({"a", 1, "x"}, After(2)), absl::StrCat(kClear, "a [", whole, "] x"));
  EXPECT_EQ(line.Draw({"b", 1.5, "x"}, After(2)), absl::StrCat(kClear, "b [", whole, "] x"));
}

TEST(ProgressLineTest, DrawsOnlyWhatIsNew) {
  ProgressLine line(kStart, kColumns);
  EXPECT_NE(line.Draw({"waiting"}, After(1.1)), "");
  EXPECT_EQ(line.Draw({"waiting"}, After(1.2)), "");
  EXPECT_NE(line.Draw({"waiting"}, After(2)), "");
}

TEST(ProgressLineTest, LeavesTheLastColumnFree) {
  ProgressLine narrow(kStart, 10);
  EXPECT_EQ(narrow.Draw({"waiting for"}, After(1)), absl::StrCat(kClear, "waiting f"));
  ProgressLine none(kStart, 0);
  EXPECT_EQ(none.Draw({"waiting"}, After(1)), "");
}

}  // namespace
}  // namespace swiglu::cli
