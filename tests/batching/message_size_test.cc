// SPDX-License-Identifier: Apache-2.0
//
// The estimate of messages to come.
#include "server/batching/message_size.h"

#include <gtest/gtest.h>

#include <chrono>

namespace swiglu::server {
namespace {

constexpr int64_t kMebibyte = int64_t{1} << 20;
constexpr Clock::time_point kThen{std::chrono::hours(1)};

TEST(MessageSizeTest, ExpectsLittleAtFirst) {
  EXPECT_EQ(MessageSizeEstimate().bytes(kThen), MessageSizeEstimate::kLeastBytes);
}

TEST(MessageSizeTest, ALargerMessageCountsAtOnce) {
  MessageSizeEstimate estimate;
  estimate.Add(kMebibyte, kThen);
  EXPECT_EQ(estimate.bytes(kThen), kMebibyte);
  estimate.Add(kMebibyte, kThen);
  EXPECT_EQ(estimate.bytes(kThen), kMebibyte);
}

TEST(MessageSizeTest, SmallerMessagesLowerItSlowlyAndNotBelowTheLeast) {
  MessageSizeEstimate estimate;
  estimate.Add(256 * kMebibyte, kThen);
  estimate.Add(0, kThen);
  EXPECT_EQ(estimate.bytes(kThen), 252 * kMebibyte);
  for (int i = 0; i < 44; ++i) estimate.Add(0, kThen);
  EXPECT_LT(estimate.bytes(kThen), 128 * kMebibyte);
  EXPECT_GT(estimate.bytes(kThen), 120 * kMebibyte);
  for (int i = 0; i < 2000; ++i) estimate.Add(0, kThen);
  EXPECT_EQ(estimate.bytes(kThen), MessageSizeEstimate::kLeastBytes);
}

TEST(MessageSizeTest, HalvesEverySecondWithoutAnyMessage) {
  MessageSizeEstimate estimate;
  estimate.Add(256 * kMebibyte, kThen);
  EXPECT_EQ(estimate.bytes(kThen + std::chrono::milliseconds(1000)), 128 * kMebibyte);
  EXPECT_EQ(estimate.bytes(kThen + std::chrono::milliseconds(5000)), 8 * kMebibyte);
  EXPECT_EQ(estimate.bytes(kThen + std::chrono::hours(1)), MessageSizeEstimate::kLeastBytes);
}

TEST(MessageSizeTest, SmallMessagesDoNotKeepItFromHalving) {
  MessageSizeEstimate estimate;
  estimate.Add(256 * kMebibyte, kThen);
  estimate.Add(0, kThen + std::chrono::milliseconds(900));
  EXPECT_EQ(estimate.bytes(kThen + std::chrono::milliseconds(1800)), 126 * kMebibyte);
}

}  // namespace
}  // namespace swiglu::server
