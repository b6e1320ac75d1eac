// SPDX-License-Identifier: Apache-2.0
//
// The batch former as a state machine under a clock that the test sets.
#include "server/batching/batch_former.h"

#include <gtest/gtest.h>

#include "tests/batching/fakes.h"

namespace swiglu::server {
namespace {

const Clock::time_point kNow = Clock::time_point(std::chrono::seconds(1000));

std::vector<int64_t> Elements(const FormedBatch& batch) {
  std::vector<int64_t> elements;
  for (const auto& request : batch.requests) elements.push_back(request->segment.num_elements);
  return elements;
}

class BatchFormerTest : public testing::Test {
 protected:
  explicit BatchFormerTest(Clock::duration delay = Clock::duration::zero())
      : former_({.max_segments = 3, .max_batch_bytes = 1000, .max_queue_delay = delay}) {}

  FormedBatch Take() { return former_.TakeIfReady(kNow, dropped_); }

  // 1,000 input bytes a batch: 250 elements of forward FP16.
  BatchFormer former_;
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

// A chunk of a large request, or a request of another level.
std::unique_ptr<Request> Chunk(int64_t num_elements, const Model& model = kForward) {
  auto request = MakeRequest(model, num_elements);
  request->extent = Extent::kChunk;
  return request;
}
std::unique_ptr<Request> Of(Priority priority, int64_t num_elements,
                            const Model& model = kForward) {
  auto request = MakeRequest(model, num_elements);
  request->priority = priority;
  return request;
}

TEST_F(BatchFormerTest, WholeRequestsAndChunksTakeTurns) {
  for (int i = 1; i <= 3; ++i) former_.Add(Chunk(249 + i));
  for (int i = 1; i <= 3; ++i) former_.Add(MakeRequest(kForward, 239 + i));
  EXPECT_EQ(Elements(Take()), (std::vector<int64_t>{240}));
  EXPECT_EQ(Elements(Take()), (std::vector<int64_t>{250}));
  EXPECT_EQ(Elements(Take()), (std::vector<int64_t>{241}));
  EXPECT_EQ(Elements(Take()), (std::vector<int64_t>{251}));
  EXPECT_EQ(Elements(Take()), (std::vector<int64_t>{242}));
  EXPECT_EQ(Elements(Take()), (std::vector<int64_t>{252}));
}

TEST_F(BatchFormerTest, FillsABatchWithChunksAndOtherLevelsOfItsModel) {
  former_.Add(Of(Priority::kLow, 3));
  former_.Add(Chunk(2));
  former_.Add(Of(Priority::kLow, 4, kBackward));
  former_.Add(MakeRequest(kForward, 1));
  EXPECT_EQ(Elements(Take()), (std::vector<int64_t>{1, 2, 3}));
  EXPECT_EQ(Elements(Take()), (std::vector<int64_t>{4}));
}

TEST_F(BatchFormerTest, AMoreUrgentLevelGoesFirst) {
  former_.Add(Of(Priority::kLow, 250));
  former_.Add(Of(Priority::kNormal, 250, kBackward));
  former_.Add(Of(Priority::kHigh, 249));
  EXPECT_EQ(Elements(Take()), (std::vector<int64_t>{249}));
  EXPECT_EQ(Elements(Take()), (std::vector<int64_t>{250}));
  EXPECT_EQ(Elements(Take()), (std::vector<int64_t>{250}));
  EXPECT_TRUE(former_.empty());
}

// With a delay, under the same clock.
class DelayedBatchFormerTest : public BatchFormerTest {
 protected:
  static constexpr std::chrono::milliseconds kDelay{5};

  DelayedBatchFormerTest() : BatchFormerTest(kDelay) {}

  void AddAt(Clock::time_point when, int64_t num_elements, const Model& model = kForward) {
    auto request = MakeRequest(model, num_elements);
    request->accepted_at = when;
    former_.Add(std::move(request));
  }
  std::vector<int64_t> TakeAt(Clock::time_point now) {
    return Elements(former_.TakeIfReady(now, dropped_));
  }
};

TEST_F(DelayedBatchFormerTest, ClosesWhenItsOldestReachesTheDelay) {
  EXPECT_FALSE(former_.ReadyAt().has_value());
  AddAt(kNow, 1);
  AddAt(kNow + kDelay / 2, 2);
  EXPECT_EQ(former_.ReadyAt(), kNow + kDelay);
  EXPECT_EQ(TakeAt(kNow + kDelay - std::chrono::nanoseconds(1)), std::vector<int64_t>());
  EXPECT_EQ(TakeAt(kNow + kDelay), (std::vector<int64_t>{1, 2}));
}

TEST_F(DelayedBatchFormerTest, ClosesWhenFull) {
  AddAt(kNow, 1, kBackward);
  AddAt(kNow + kDelay / 2, 125);
  EXPECT_EQ(TakeAt(kNow + kDelay / 2), std::vector<int64_t>());
  AddAt(kNow + kDelay / 2, 125);
  EXPECT_EQ(former_.ReadyAt(), kNow + kDelay / 2);
  // Not the older one, which waits on.
  EXPECT_EQ(TakeAt(kNow + kDelay / 2), (std::vector<int64_t>{125, 125}));
  EXPECT_EQ(former_.ReadyAt(), kNow + kDelay);
  for (int i = 0; i < 3; ++i) AddAt(kNow + kDelay / 2, i);
  EXPECT_EQ(TakeAt(kNow + kDelay / 2), (std::vector<int64_t>{0, 1, 2}));
}

TEST_F(DelayedBatchFormerTest, DropsWhatIsLateWhileItWaits) {
  AddAt(kNow, 1);
  auto late = MakeRequest(kForward, 2);
  late->accepted_at = kNow;
  late->deadline = kNow + kDelay / 2;
  former_.Add(std::move(late));
  EXPECT_EQ(TakeAt(kNow + kDelay), (std::vector<int64_t>{1}));
  EXPECT_EQ(dropped_.size(), 1u);
}

}  // namespace
}  // namespace swiglu::server
