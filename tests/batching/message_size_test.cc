// SPDX-License-Identifier: Apache-2.0
//
// The estimate of messages to come.
#include "server/batching/message_size.h"

#include <gtest/gtest.h>

#include <chrono>

namespace swiglu::server {
namespace {

constexpr int64_t kMiB = int64_t{1} << 20;
constexpr Clock::time_point kNow{std::chrono::hours(1)};

TEST(MessageSizeTest, ExpectsLittleAtFirst) {
  EXPECT_EQ(MessageSizeEstimate().bytes(kNow), MessageSizeEstimate::kLeastBytes);
}

TEST(MessageSizeTest, ALargerMessageCountsAtOnce) {
  MessageSizeEstimate estimate;
  estimate.Add(kMiB, kNow);
  EXPECT_EQ(estimate.bytes(kNow), kMiB);
  estimate.Add(kMiB, kNow);
  EXPECT_EQ(estimate.bytes(kNow), kMiB);
}

TEST(MessageSizeTest, SmallerMessagesLowerItSlowlyAndNotBelowTheLeast) {
  MessageSizeEstimate estimate;
  estimate.Add(256 * kMiB, kNow);
  estimate.Add(0, kNow);
  EXPECT_EQ(estimate.bytes(kNow), 252 * kMiB);
  for (int i = 0; i < 44; ++i) estimate.Add(0, kNow);
  EXPECT_LT(estimate.bytes(kNow), 128 * kMiB);
  EXPECT_GT(estimate.bytes(kNow), 120 * kMiB);
  for (int i = 0; i < 2000; ++i) estimate.Add(0, kNow);
  EXPECT_EQ(estimate.bytes(kNow), MessageSizeEstimate::kLeastBytes);
}

TEST(MessageSizeTest, HalvesEverySecondWithoutAnyMessage) {
  MessageSizeEstimate estimate;
  estimate.Add(256 * kMiB, kNow);
  EXPECT_EQ(estimate.bytes(kNow + std::chrono::milliseconds(1000)), 128 * kMiB);
  EXPECT_EQ(estimate.bytes(kNow + std::chrono::milliseconds(5000)), 8 * kMiB);
  EXPECT_EQ(estimate.bytes(kNow + std::chrono::hours(1)), MessageSizeEstimate::kLeastBytes);
}

TEST(MessageSizeTest, SmallMessagesDoNotKeepItFromHalving) {
  MessageSizeEstimate estimate;
  estimate.Add(256 * kMiB, kNow);
  estimate.Add(0, kNow + std::chrono::milliseconds(900));
  EXPECT_EQ(estimate.bytes(kNow + std::chrono::milliseconds(1800)), 126 * kMiB);
}

}  // namespace
}  // namespace swiglu::server
