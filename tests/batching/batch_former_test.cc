// SPDX-License-Identifier: Apache-2.0
//
// The batch former as a state machine under a clock that the test sets.
#include "server/batching/batch_former.h"

#include <gtest/gtest.h>

#include "tests/batching/fakes.h"

namespace swiglu::server {
namespace {

const Model& kForward = *FindModel("swiglu_forward_fp16");
const Model& kBackward = *FindModel("swiglu_backward_fp16");
const Clock::time_point kNow = Clock::time_point(std::chrono::seconds(1000));

std::vector<int64_t> Elements(const FormedBatch& batch) {
  std::vector<int64_t> elements;
  for (const auto& request : batch.requests) elements.push_back(request->segment.num_elements);
  return elements;
}

class BatchFormerTest : public testing::Test {
 protected:
  FormedBatch Take() { return former_.TakeIfReady(kNow, dropped_); }

  // 1,000 input bytes a batch: 250 elements of forward FP16.
  BatchFormer former_{{.max_segments = 3, .max_batch_bytes = 1000}};
  std::vector<DroppedRequest> dropped_;
};

TEST_F(BatchFormerTest, GivesNothingWhenNothingIsQueued) {
  EXPECT_TRUE(Take().requests.empty());
  EXPECT_TRUE(former_.empty());
}

TEST_F(BatchFormerTest, PutsRequestsOfOneModelTogetherInOrderOfArrival) {
  former_.Add(MakeRequest(kForward, 1));
  former_.Add(MakeRequest(kForward, 2));
  EXPECT_EQ(Elements(Take()), (std::vector<int64_t>{1, 2}));
  EXPECT_TRUE(former_.empty());
}

TEST_F(BatchFormerTest, NeverMixesModels) {
  former_.Add(MakeRequest(kForward, 1));
  former_.Add(MakeRequest(kBackward, 2));
  former_.Add(MakeRequest(kForward, 3));
  EXPECT_EQ(Elements(Take()), (std::vector<int64_t>{1, 3}));
  EXPECT_EQ(Elements(Take()), (std::vector<int64_t>{2}));
}

TEST_F(BatchFormerTest, TakesTheOldestRequestFirstWhateverItsModel) {
  former_.Add(MakeRequest(kBackward, 1));
  former_.Add(MakeRequest(kForward, 2));
  EXPECT_EQ(Elements(Take()), (std::vector<int64_t>{1}));
}

TEST_F(BatchFormerTest, StopsAtTheSegmentLimit) {
  for (int i = 0; i < 5; ++i) former_.Add(MakeRequest(kForward, i));
  EXPECT_EQ(Elements(Take()), (std::vector<int64_t>{0, 1, 2}));
  EXPECT_EQ(Elements(Take()), (std::vector<int64_t>{3, 4}));
}

TEST_F(BatchFormerTest, StopsAtTheByteLimit) {
  former_.Add(MakeRequest(kForward, 200));
  former_.Add(MakeRequest(kForward, 50));
  former_.Add(MakeRequest(kForward, 1));
  EXPECT_EQ(Elements(Take()), (std::vector<int64_t>{200, 50}));
  EXPECT_EQ(Elements(Take()), (std::vector<int64_t>{1}));
}

TEST_F(BatchFormerTest, LetsARequestOverTheByteLimitTravelAlone) {
  former_.Add(MakeRequest(kForward, 100'000));
  former_.Add(MakeRequest(kForward, 1));
  EXPECT_EQ(Elements(Take()), (std::vector<int64_t>{100'000}));
}

TEST_F(BatchFormerTest, DropsWhatIsCancelledOrLate) {
  auto cancelled = std::make_shared<std::atomic<bool>>(false);
  former_.Add(MakeRequest(
      kForward, 1, [](auto, const auto&) {}, cancelled));
  former_.Add(MakeRequest(kForward, 2));
  auto late = MakeRequest(kForward, 3);
  late->deadline = kNow;
  former_.Add(std::move(late));
  auto in_time = MakeRequest(kForward, 4);
  in_time->deadline = kNow + std::chrono::nanoseconds(1);
  former_.Add(std::move(in_time));
  *cancelled = true;

  EXPECT_EQ(Elements(Take()), (std::vector<int64_t>{2, 4}));
  ASSERT_EQ(dropped_.size(), 2u);
  EXPECT_EQ(dropped_[0].status.code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(dropped_[1].status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_TRUE(former_.empty());
}

}  // namespace
}  // namespace swiglu::server
