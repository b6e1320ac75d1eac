// SPDX-License-Identifier: Apache-2.0
//
// The estimate of messages to come.
#include "server/batching/message_size.h"

#include <gtest/gtest.h>

namespace swiglu::server {
namespace {

constexpr int64_t kMiB = int64_t{1} << 20;

TEST(MessageSizeTest, ExpectsLittleAtFirst) {
  EXPECT_EQ(MessageSizeEstimate().bytes(), MessageSizeEstimate::kLeastBytes);
}

TEST(MessageSizeTest, ALargerMessageCountsAtOnce) {
  MessageSizeEstimate estimate;
  estimate.Add(kMiB);
  EXPECT_EQ(estimate.bytes(), kMiB);
  estimate.Add(kMiB);
  EXPECT_EQ(estimate.bytes(), kMiB);
}

TEST(MessageSizeTest, SmallerMessagesLowerItSlowlyAndNotBelowTheLeast) {
  MessageSizeEstimate estimate;
  estimate.Add(256 * kMiB);
  estimate.Add(0);
  EXPECT_EQ(estimate.bytes(), 252 * kMiB);
  for (int i = 0; i < 44; ++i) estimate.Add(0);
  EXPECT_LT(estimate.bytes(), 128 * kMiB);
  EXPECT_GT(estimate.bytes(), 120 * kMiB);
  for (int i = 0; i < 2000; ++i) estimate.Add(0);
  EXPECT_EQ(estimate.bytes(), MessageSizeEstimate::kLeastBytes);
}

}  // namespace
}  // namespace swiglu::server
