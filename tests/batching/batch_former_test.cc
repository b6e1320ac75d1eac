// SPDX-License-Identifier: Apache-2.0
//
// The batch former as a state machine under a clock that the test sets.
#include "server/batching/batch_former.h"

#include <gtest/gtest.h>

#include "tests/batching/fakes.h"

namespace swiglu::server {
namespace {

using std::chrono::nanoseconds;
using std::chrono::seconds;

constexpr absl::StatusCode kLate = absl::StatusCode::kDeadlineExceeded;
constexpr absl::StatusCode kCancelled = absl::StatusCode::kCancelled;
const Clock::time_point kNow = Clock::time_point(std::chrono::seconds(1000));

// Where every placement has a lane.
bool AnyLane(const Model&, const Placement&, int64_t) { return true; }

std::vector<int64_t> Elements(const FormedBatch& batch) {
  std::vector<int64_t> elements;
  for (const auto& request : batch.requests) elements.push_back(request->segment.num_elements);
  return elements;
}

using Dropped = std::pair<int64_t, absl::StatusCode>;
using CancelFlag = std::shared_ptr<std::atomic<bool>>;

// A request as of `kNow`.
std::unique_ptr<Request> RequestOf(
    int64_t num_elements, CancelFlag cancelled = std::make_shared<std::atomic<bool>>(false)) {
  auto request = MakeRequest(
      kForward, num_elements, [](auto, const auto&) {}, std::move(cancelled));
  request->accepted_at = kNow;
  return request;
}

std::unique_ptr<Request> Due(Clock::duration after, int64_t num_elements) {
  auto request = RequestOf(num_elements);
  request->deadline = kNow + after;
  return request;
}

class BatchFormerTest : public testing::Test {
 protected:
  explicit BatchFormerTest(Clock::duration delay = Clock::duration::zero())
      : former_({.max_segments = 3, .max_batch_bytes = 1000, .max_queue_delay = delay}) {}

  FormedBatch Take() { return former_.TakeIfReady(kNow, AnyLane); }
  // Elements and codes of what was dropped since the last time.
  std::vector<Dropped> TakeDropped() {
    std::vector<Dropped> all;
    for (const DroppedRequest& dropped : former_.TakeDropped()) {
      all.push_back({dropped.request->segment.num_elements, dropped.status.code()});
    }
    return all;
  }

  // 1,000 input bytes a batch: 250 elements of forward FP16.
  BatchFormer former_;
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

// `count` models, each with its own index.
std::vector<Model> ManyModels(int count) {
  std::vector<Model> models(count, kForward);
  for (int i = 0; i < count; ++i) models[i].index = i;
  return models;
}

TEST_F(BatchFormerTest, TakesRequestsOfManyModelsInOrderOfArrival) {
  const std::vector<Model> models = ManyModels(500);
  BatchFormer former({});
  // 7 and 500 have no common divisor, so each model gets one request.
  for (int i = 0; i < 500; ++i) former.Add(MakeRequest(models[i * 7 % 500], i));
  for (int i = 0; i < 500; ++i) former.Add(MakeRequest(models[i], 500 + i));
  std::vector<std::vector<int64_t>> taken, expected;
  for (int i = 0; i < 500; ++i) {
    taken.push_back(Elements(former.TakeIfReady(kNow, AnyLane)));
    expected.push_back({i, 500 + i * 7 % 500});
  }
  EXPECT_EQ(taken, expected);
  EXPECT_TRUE(former.empty());
}

TEST_F(BatchFormerTest, AsksForLanesOfModelsThatHaveRequestsAlone) {
  int num_asked = 0;
  const auto count = [&num_asked](const Model&, const Placement&, int64_t) {
    ++num_asked;
    return true;
  };
  const std::vector<Model> models = ManyModels(500);
  for (const Model& model : models) former_.Add(MakeRequest(model, 1));
  for (int i = 0; i < 500; ++i) EXPECT_FALSE(Take().requests.empty());
  for (const int last : {499, 0, 250}) {
    former_.Add(MakeRequest(models[last], 1));
    former_.Add(MakeRequest(models[last], 2));
    num_asked = 0;
    EXPECT_EQ(former_.ReadyAt(count).has_value(), true);
    EXPECT_EQ(num_asked, 1);
    EXPECT_EQ(Elements(former_.TakeIfReady(kNow, count)), (std::vector<int64_t>{1, 2}));
    EXPECT_LE(num_asked, 3);  // also: is any lane free, and whose request comes first
    EXPECT_TRUE(former_.TakeIfReady(kNow, count).requests.empty());
    EXPECT_LE(num_asked, 3);
  }
}

TEST_F(BatchFormerTest, FindsTheModelsThatAreLeftWhenOthersLeave) {
  const std::vector<Model> models = ManyModels(4);
  std::vector<CancelFlag> flags;
  for (int i = 0; i < 4; ++i) {
    flags.push_back(std::make_shared<std::atomic<bool>>(false));
    former_.Add(MakeRequest(
        models[i], i, [](auto, const auto&) {}, flags.back()));
  }
  for (const int i : {1, 3, 0}) {
    flags[i]->store(true);
    former_.Cancel(*flags[i], kNow);
  }
  EXPECT_EQ(TakeDropped().size(), 3u);
  former_.Add(MakeRequest(models[1], 5));
  EXPECT_EQ(Elements(Take()), (std::vector<int64_t>{2}));
  EXPECT_EQ(Elements(Take()), (std::vector<int64_t>{5}));
  EXPECT_TRUE(Take().requests.empty());
}

// A request with tensors in the memory of that device, all of them or some.
std::unique_ptr<Request> OnDevice(int device, bool is_resident, int64_t num_elements) {
  auto request = MakeRequest(kForward, num_elements);
  request->placement = {device, is_resident};
  return request;
}

TEST_F(BatchFormerTest, NeverMixesPlacements) {
  former_.Add(OnDevice(0, true, 1));
  former_.Add(MakeRequest(kForward, 2));
  former_.Add(OnDevice(1, true, 3));
  former_.Add(OnDevice(0, false, 4));
  former_.Add(OnDevice(0, true, 5));
  EXPECT_EQ(Elements(Take()), (std::vector<int64_t>{1, 5}));
  EXPECT_EQ(Elements(Take()), (std::vector<int64_t>{2}));
  EXPECT_EQ(Elements(Take()), (std::vector<int64_t>{3}));
  EXPECT_EQ(Elements(Take()), (std::vector<int64_t>{4}));
  EXPECT_TRUE(former_.empty());
}

TEST_F(BatchFormerTest, PassesOverRequestsWithoutALane) {
  const auto only_resident = [](const Model&, const Placement& placement, int64_t) {
    return placement.is_resident;
  };
  former_.Add(MakeRequest(kForward, 1));
  former_.Add(OnDevice(0, false, 2));
  EXPECT_TRUE(former_.TakeIfReady(kNow, only_resident).requests.empty());
  EXPECT_FALSE(former_.ReadyAt(only_resident).has_value());
  former_.Add(OnDevice(0, true, 3));
  EXPECT_TRUE(former_.ReadyAt(only_resident).has_value());
  EXPECT_EQ(Elements(former_.TakeIfReady(kNow, only_resident)), (std::vector<int64_t>{3}));
  EXPECT_EQ(Elements(Take()), (std::vector<int64_t>{1}));
  EXPECT_EQ(Elements(Take()), (std::vector<int64_t>{2}));
}

TEST_F(BatchFormerTest, PassesOverRequestsOfTooFewBytesForALane) {
  const auto only_large = [](const Model&, const Placement&, int64_t bytes) {
    return bytes >= 400;
  };
  former_.Add(MakeRequest(kForward, 1));
  EXPECT_TRUE(former_.TakeIfReady(kNow, only_large).requests.empty());
  EXPECT_FALSE(former_.ReadyAt(only_large).has_value());
  former_.Add(MakeRequest(kBackward, 100));
  EXPECT_TRUE(former_.ReadyAt(only_large).has_value());
  const FormedBatch large = former_.TakeIfReady(kNow, only_large);
  EXPECT_EQ(Elements(large), (std::vector<int64_t>{100}));
  EXPECT_EQ(large.bytes, 3 * 2 * 100);
  // Together, the requests of one model have enough.
  former_.Add(MakeRequest(kForward, 99));
  EXPECT_EQ(Elements(former_.TakeIfReady(kNow, only_large)), (std::vector<int64_t>{1, 99}));
}

TEST_F(BatchFormerTest, TakesAsManyRowsAsTheModelAllows) {
  const Model rows = MakeMlpModel({.mlp = "m", .hidden = 1000, .max_batch_rows = 5});
  BatchFormer former({.max_batch_bytes = 1});
  for (const int64_t num_rows : {2, 3, 1, 7}) former.Add(MakeRequest(rows, num_rows * 1000));
  const auto take = [&former] { return Elements(former.TakeIfReady(kNow, AnyLane)); };
  EXPECT_EQ(take(), (std::vector<int64_t>{2000, 3000}));
  EXPECT_EQ(take(), (std::vector<int64_t>{1000}));
  EXPECT_EQ(take(), (std::vector<int64_t>{7000}));
}

// A request that wants a gradient, which is never written.
std::unique_ptr<Request> WithGradient(int64_t num_elements) {
  static float gradient;
  auto request = RequestOf(num_elements);
  request->segment.gradients[1] = &gradient;
  return request;
}

TEST_F(BatchFormerTest, GivesGradientsABatchOfTheirOwn) {
  former_.Add(WithGradient(1));
  former_.Add(RequestOf(2));
  former_.Add(WithGradient(3));
  former_.Add(WithGradient(0));
  former_.Add(RequestOf(0));
  for (int64_t num_elements : {1, 2, 3, 0, 0}) {
    EXPECT_EQ(Elements(Take()), std::vector<int64_t>{num_elements});
  }
  EXPECT_TRUE(former_.empty());
}

TEST_F(BatchFormerTest, MixesNoWeights) {
  class SomeWeights final : public Weights {
   public:
    SomeWeights() : Weights("") {}
  };
  const auto with = [](std::shared_ptr<const Weights> weights, int64_t num_elements) {
    auto request = MakeRequest(kForward, num_elements);
    request->weights = std::move(weights);
    return request;
  };
  const auto a = std::make_shared<const SomeWeights>(), b = std::make_shared<const SomeWeights>();
  former_.Add(with(a, 1));
  former_.Add(with(a, 2));
  former_.Add(with(b, 3));
  former_.Add(with(a, 4));
  EXPECT_EQ(Elements(Take()), (std::vector<int64_t>{1, 2}));
  EXPECT_EQ(Elements(Take()), (std::vector<int64_t>{3}));
  EXPECT_EQ(Elements(Take()), (std::vector<int64_t>{4}));
}

TEST_F(BatchFormerTest, ResidentRequestsTakeNoTurnOfWholeOnes) {
  const auto chunk = [](int64_t num_elements) {
    auto request = MakeRequest(kForward, num_elements);
    request->extent = Extent::kChunk;
    return request;
  };
  BatchFormer former({.max_segments = 1});
  const auto take = [&former] { return Elements(former.TakeIfReady(kNow, AnyLane)); };
  former.Add(chunk(1));
  former.Add(chunk(2));
  EXPECT_EQ(take(), (std::vector<int64_t>{1}));
  // It is whole, and the next whole one is still due.
  former.Add(OnDevice(0, true, 3));
  EXPECT_EQ(take(), (std::vector<int64_t>{3}));
  former.Add(MakeRequest(kForward, 4));
  EXPECT_EQ(take(), (std::vector<int64_t>{4}));
  EXPECT_EQ(take(), (std::vector<int64_t>{2}));
}

TEST_F(BatchFormerTest, TakesMoreBytesWhereAllAreInDeviceMemory) {
  BatchFormer former({.max_batch_bytes = 1000, .max_resident_batch_bytes = 3000});
  for (int i = 0; i < 4; ++i) former.Add(OnDevice(0, true, 250));
  EXPECT_EQ(former.TakeIfReady(kNow, AnyLane).requests.size(), 3u);
  EXPECT_EQ(former.TakeIfReady(kNow, AnyLane).requests.size(), 1u);
  for (int i = 0; i < 2; ++i) former.Add(OnDevice(0, false, 250));
  EXPECT_EQ(former.TakeIfReady(kNow, AnyLane).requests.size(), 1u);
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

TEST_F(BatchFormerTest, ALateRequestLeavesItsQueueWhereverItStands) {
  former_.Add(Due(seconds(3), 1));
  former_.Add(Due(seconds(1), 2));
  former_.Add(RequestOf(3));
  former_.Add(Due(seconds(1), 4));
  EXPECT_EQ(former_.FirstDeadline(), kNow + seconds(1));
  former_.DropLate(kNow + seconds(1) - nanoseconds(1));
  EXPECT_EQ(TakeDropped(), std::vector<Dropped>());
  former_.DropLate(kNow + seconds(1));
  EXPECT_EQ(TakeDropped(), (std::vector<Dropped>{{2, kLate}, {4, kLate}}));
  EXPECT_EQ(former_.FirstDeadline(), kNow + seconds(3));
  EXPECT_EQ(Elements(Take()), (std::vector<int64_t>{1, 3}));
  EXPECT_EQ(former_.FirstDeadline(), Clock::time_point::max());
  former_.DropLate(Clock::time_point::max());
  EXPECT_EQ(TakeDropped(), std::vector<Dropped>());
  EXPECT_TRUE(former_.empty());
}

TEST_F(BatchFormerTest, NothingLateIsInABatch) {
  former_.Add(Due(seconds(1), 1));
  former_.Add(Due(seconds(1) + nanoseconds(1), 2));
  EXPECT_EQ(Elements(former_.TakeIfReady(kNow + seconds(1), AnyLane)), (std::vector<int64_t>{2}));
  EXPECT_EQ(TakeDropped(), (std::vector<Dropped>{{1, kLate}}));
}

TEST_F(BatchFormerTest, ACancelledCallersRequestsLeaveTheirQueuesAndNoOthersDo) {
  const auto caller = std::make_shared<std::atomic<bool>>(false);
  const auto other = std::make_shared<std::atomic<bool>>(false);
  former_.Add(RequestOf(1, caller));
  former_.Add(RequestOf(2, other));
  auto low = RequestOf(3, caller);
  low->priority = Priority::kLow;
  former_.Add(std::move(low));
  former_.Add(RequestOf(4, caller));
  former_.Add(RequestOf(5, other));
  former_.Cancel(*caller, kNow);
  EXPECT_EQ(TakeDropped(),
            (std::vector<Dropped>{{4, kCancelled}, {3, kCancelled}, {1, kCancelled}}));
  former_.Cancel(*caller, kNow);
  EXPECT_EQ(TakeDropped(), std::vector<Dropped>());
  EXPECT_EQ(Elements(Take()), (std::vector<int64_t>{2, 5}));
  former_.Cancel(*other, kNow);
  EXPECT_EQ(TakeDropped(), std::vector<Dropped>());
  EXPECT_TRUE(former_.empty());
}

// In every order of leaving, what is left is still found by its caller.
TEST_F(BatchFormerTest, ACallersOtherRequestsAreFoundWhicheverLeavesFirst) {
  for (int64_t first_gone = 1; first_gone <= 3; ++first_gone) {
    const auto caller = std::make_shared<std::atomic<bool>>(false);
    for (int64_t i = 1; i <= 3; ++i) {
      auto request = RequestOf(i, caller);
      if (i == first_gone) request->deadline = kNow + seconds(1);
      former_.Add(std::move(request));
    }
    former_.DropLate(kNow + seconds(1));
    EXPECT_EQ(TakeDropped(), (std::vector<Dropped>{{first_gone, kLate}}));
    former_.Cancel(*caller, kNow);
    EXPECT_EQ(TakeDropped().size(), 2u) << first_gone;
    EXPECT_TRUE(former_.empty());
    former_.Add(RequestOf(4));
    EXPECT_EQ(Elements(Take()), (std::vector<int64_t>{4}));
  }
}

// It was cancelled or late before it came.
TEST_F(BatchFormerTest, WhatComesDeadIsNotQueued) {
  former_.Add(RequestOf(1, std::make_shared<std::atomic<bool>>(true)));
  former_.Add(Due(seconds(0), 2));
  former_.Add(Due(nanoseconds(1), 3));
  EXPECT_EQ(TakeDropped(), (std::vector<Dropped>{{1, kCancelled}, {2, kLate}}));
  EXPECT_EQ(Elements(Take()), (std::vector<int64_t>{3}));
}

TEST_F(BatchFormerTest, TheOnlyRequestMayBeLateOrCancelled) {
  former_.Add(Due(seconds(1), 1));
  EXPECT_EQ(Elements(former_.TakeIfReady(kNow + seconds(1), AnyLane)), std::vector<int64_t>());
  EXPECT_EQ(TakeDropped(), (std::vector<Dropped>{{1, kLate}}));
  const auto caller = std::make_shared<std::atomic<bool>>(false);
  former_.Add(RequestOf(2, caller));
  former_.Cancel(*caller, kNow);
  EXPECT_EQ(TakeDropped(), (std::vector<Dropped>{{2, kCancelled}}));
  EXPECT_TRUE(former_.empty());
}

// A caller's own clock reaches the deadline before the server's does.
TEST_F(BatchFormerTest, WhoGoesAwayAtItsDeadlineWasNotServedInTime) {
  using std::chrono::milliseconds;
  const struct {
    milliseconds before_deadline;
    absl::StatusCode code;
  } cases[] = {{milliseconds(0), kLate},
               {milliseconds(1010), kLate},
               {milliseconds(1011), kCancelled},
               {milliseconds(50'000), kCancelled}};
  for (const auto& c : cases) {
    auto request = Due(seconds(100), 1);
    const auto caller = request->cancelled;
    former_.Add(std::move(request));
    former_.Cancel(*caller, kNow + seconds(100) - c.before_deadline);
    EXPECT_EQ(TakeDropped(), (std::vector<Dropped>{{1, c.code}})) << c.before_deadline.count();
  }
}

TEST_F(BatchFormerTest, DroppedRequestsCountForNoBatch) {
  // Two of three that would fill one.
  const auto caller = std::make_shared<std::atomic<bool>>(false);
  former_.Add(RequestOf(200, caller));
  former_.Add(RequestOf(200, caller));
  former_.Cancel(*caller, kNow);
  former_.Add(RequestOf(125));
  former_.Add(RequestOf(125));
  EXPECT_EQ(Elements(Take()), (std::vector<int64_t>{125, 125}));
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
    return Elements(former_.TakeIfReady(now, AnyLane));
  }
};

TEST_F(DelayedBatchFormerTest, ClosesWhenItsOldestReachesTheDelay) {
  EXPECT_FALSE(former_.ReadyAt(AnyLane).has_value());
  AddAt(kNow, 1);
  AddAt(kNow + kDelay / 2, 2);
  EXPECT_EQ(former_.ReadyAt(AnyLane), kNow + kDelay);
  EXPECT_EQ(TakeAt(kNow + kDelay - std::chrono::nanoseconds(1)), std::vector<int64_t>());
  EXPECT_EQ(TakeAt(kNow + kDelay), (std::vector<int64_t>{1, 2}));
}

TEST_F(DelayedBatchFormerTest, ClosesWhenFull) {
  AddAt(kNow, 1, kBackward);
  AddAt(kNow + kDelay / 2, 125);
  EXPECT_EQ(TakeAt(kNow + kDelay / 2), std::vector<int64_t>());
  AddAt(kNow + kDelay / 2, 125);
  EXPECT_EQ(former_.ReadyAt(AnyLane), kNow + kDelay / 2);
  // Not the older one, which waits on.
  EXPECT_EQ(TakeAt(kNow + kDelay / 2), (std::vector<int64_t>{125, 125}));
  EXPECT_EQ(former_.ReadyAt(AnyLane), kNow + kDelay);
  for (int i = 0; i < 3; ++i) AddAt(kNow + kDelay / 2, i);
  EXPECT_EQ(TakeAt(kNow + kDelay / 2), (std::vector<int64_t>{0, 1, 2}));
}

TEST_F(DelayedBatchFormerTest, GradientsWaitForNoCompany) {
  former_.Add(RequestOf(1));
  EXPECT_EQ(former_.ReadyAt(AnyLane), kNow + kDelay);
  former_.Add(WithGradient(2));
  EXPECT_EQ(former_.ReadyAt(AnyLane), kNow);
  EXPECT_EQ(TakeAt(kNow), std::vector<int64_t>{1});
  EXPECT_EQ(TakeAt(kNow), std::vector<int64_t>{2});
  former_.Add(RequestOf(3));
  EXPECT_EQ(former_.ReadyAt(AnyLane), kNow + kDelay);
}

TEST_F(DelayedBatchFormerTest, WhatIsDroppedFillsNoBatchAndHastensNone) {
  AddAt(kNow, 1);
  auto late = Due(kDelay / 2, 2);
  former_.Add(std::move(late));
  AddAt(kNow + kDelay / 4, 3);
  EXPECT_EQ(former_.ReadyAt(AnyLane), kNow);  // three fill a batch
  former_.DropLate(kNow + kDelay / 2);
  EXPECT_EQ(former_.ReadyAt(AnyLane), kNow + kDelay);
  EXPECT_EQ(TakeAt(kNow + kDelay / 2), std::vector<int64_t>());
  EXPECT_EQ(TakeAt(kNow + kDelay), (std::vector<int64_t>{1, 3}));
}

TEST_F(DelayedBatchFormerTest, IsReadyWhenWhatIsLeftIs) {
  const auto caller = std::make_shared<std::atomic<bool>>(false);
  // Together they would fill a batch.
  former_.Add(RequestOf(200, caller));
  AddAt(kNow + kDelay / 2, 60);
  EXPECT_EQ(former_.ReadyAt(AnyLane), kNow);
  former_.Cancel(*caller, kNow);
  EXPECT_EQ(former_.ReadyAt(AnyLane), kNow + kDelay / 2 + kDelay);
}

}  // namespace
}  // namespace swiglu::server
