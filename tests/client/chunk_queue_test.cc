// SPDX-License-Identifier: Apache-2.0
//
// The chunks of a split operation: order, width, sizes, and the end.
#include "client/chunk_queue.h"

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace swiglu::client {
namespace {

const absl::Status kBusy = absl::UnavailableError("busy");
const absl::Status kTooLarge = absl::ResourceExhaustedError("too large");

constexpr absl::Time kNoDeadline = absl::InfiniteFuture();
const absl::Time kNow = absl::UnixEpoch() + absl::Hours(1);

TEST(ChunkQueueTest, HandsOutAllElementsInOrder) {
  ChunkQueue queue("m", {10, 4, 1, 3}, kNoDeadline);
  std::vector<int64_t> counts;
  for (int64_t first = 0; const int64_t count : {4, 4, 2}) {
    const absl::optional<Chunk> chunk = queue.Take(kNow);
    ASSERT_TRUE(chunk);
    EXPECT_EQ(chunk->first, first);
    EXPECT_EQ(chunk->count, count);
    first += count;
    const auto progress = queue.Succeed("w");
    ASSERT_TRUE(progress);
    EXPECT_EQ(progress->num_chunks, 3);
  }
  EXPECT_FALSE(queue.Take(kNow));
  EXPECT_EQ(*queue.Result(), "w");
}

TEST(ChunkQueueTest, AChunkThatIsPushedBackComesAgain) {
  ChunkQueue queue("m", {8, 4, 1, 2}, kNoDeadline);
  const Chunk first = *queue.Take(kNow);
  ASSERT_TRUE(queue.Take(kNow));
  queue.PushBack(first, kBusy, kNow);
  queue.Succeed("");
  const Chunk again = *queue.Take(kNow);
  EXPECT_EQ(again.first, first.first);
  EXPECT_EQ(again.count, first.count);
  queue.Succeed("");
  EXPECT_FALSE(queue.Take(kNow));
  EXPECT_TRUE(queue.Result().ok());
}

TEST(ChunkQueueTest, NoChunkBeginsBeforeTheServerAllowsIt) {
  ChunkQueue queue("m", {8, 4, 1, 2}, kNoDeadline);
  EXPECT_EQ(queue.NextTake(kNow), kNow);
  const absl::Time opens = kNow + absl::Milliseconds(30);
  queue.PushBack(*queue.Take(kNow), kBusy, opens);
  EXPECT_EQ(queue.NextTake(kNow), opens);
  EXPECT_FALSE(queue.Take(opens - absl::Nanoseconds(1)));
  EXPECT_EQ(queue.NextTake(opens), opens);
  EXPECT_TRUE(queue.Take(opens));
}

TEST(ChunkQueueTest, TheLatestTimeOfAServerCounts) {
  ChunkQueue queue("m", {8, 1, 1, 2}, kNoDeadline);
  const Chunk first = *queue.Take(kNow), second = *queue.Take(kNow);
  queue.PushBack(first, kBusy, kNow + absl::Seconds(2));
  queue.PushBack(second, kBusy, kNow + absl::Seconds(1));
  EXPECT_EQ(queue.NextTake(kNow), kNow + absl::Seconds(2));
}

// With two of three under way after a refusal, the third waits until one of them has ended.
TEST(ChunkQueueTest, KeepsOnlyAsManyUnderWayAsTheServerTook) {
  ChunkQueue queue("m", {100, 1, 1, 3}, kNoDeadline);
  for (int i = 0; i < 2; ++i) ASSERT_TRUE(queue.Take(kNow));
  queue.PushBack(*queue.Take(kNow), kBusy, kNow);
  EXPECT_FALSE(queue.Take(kNow)) << "three under way";
  EXPECT_EQ(queue.NextTake(kNow), absl::InfiniteFuture());
  queue.Succeed("");
  EXPECT_TRUE(queue.Take(kNow));
}

TEST(ChunkQueueTest, WidensAgainAfterSuccesses) {
  ChunkQueue queue("m", {1000, 1, 1, 2}, kNoDeadline);
  const Chunk first = *queue.Take(kNow);
  ASSERT_TRUE(queue.Take(kNow));
  queue.PushBack(first, kBusy, kNow);
  queue.Succeed("");
  for (int i = 0; i < 7; ++i) {
    ASSERT_TRUE(queue.Take(kNow));
    queue.Succeed("");
  }
  ASSERT_TRUE(queue.Take(kNow));
  EXPECT_TRUE(queue.Take(kNow)) << "a second one, without waiting for the first";
}

// Lets so many chunks of `queue` succeed, one after the other, and expects that each has so many
// elements.
void Succeed(ChunkQueue* queue, int num_chunks, int64_t count) {
  for (int i = 0; i < num_chunks; ++i) {
    const absl::optional<Chunk> chunk = queue->Take(kNow);
    ASSERT_TRUE(chunk);
    EXPECT_EQ(chunk->count, count) << i;
    queue->Succeed("");
  }
}

// Lets the server refuse so many chunks of `queue`, one after the other.
void PushBackAlone(ChunkQueue* queue, int num_chunks) {
  for (int i = 0; i < num_chunks; ++i) queue->PushBack(*queue->Take(kNow), kBusy, kNow);
}

TEST(ChunkQueueTest, ARefusalBeginsTheRowOfSuccessesAnew) {
  ChunkQueue queue("m", {1000, 1, 1, 2}, kNoDeadline);
  PushBackAlone(&queue, 1);
  Succeed(&queue, 7, 1);
  PushBackAlone(&queue, 1);
  Succeed(&queue, 7, 1);
  ASSERT_TRUE(queue.Take(kNow));
  EXPECT_FALSE(queue.Take(kNow)) << "the width is still one";
}

TEST(ChunkQueueTest, ChunksShrinkToHalfUntilTheServerTakesThem) {
  ChunkQueue queue("m", {64, 64, 4, 1}, kNoDeadline);
  for (const int64_t count : {64, 32, 16, 8, 4}) {
    const Chunk chunk = *queue.Take(kNow);
    EXPECT_EQ(chunk.first, 0);
    EXPECT_EQ(chunk.count, count);
    queue.Shrink(chunk, kTooLarge);
  }
  EXPECT_FALSE(queue.Take(kNow)) << "4 is the least";
  EXPECT_EQ(queue.Result().status(), kTooLarge);
}

TEST(ChunkQueueTest, ChunksStayMultiplesOfTheLeast) {
  ChunkQueue queue("m", {70, 50, 10, 1}, kNoDeadline);
  queue.Shrink(*queue.Take(kNow), kTooLarge);
  std::vector<int64_t> counts;
  while (const absl::optional<Chunk> chunk = queue.Take(kNow)) {
    counts.push_back(chunk->count);
    queue.Succeed("");
  }
  EXPECT_EQ(counts, (std::vector<int64_t>{20, 20, 10, 20}));
}

// A lone chunk that is refused again and again is too large for the server.
TEST(ChunkQueueTest, AChunkThatIsRefusedAloneShrinks) {
  ChunkQueue queue("m", {64, 64, 1, 1}, kNoDeadline);
  for (int i = 0; i < 3; ++i) {
    const Chunk chunk = *queue.Take(kNow);
    EXPECT_EQ(chunk.count, 64) << i;
    queue.PushBack(chunk, kBusy, kNow);
  }
  EXPECT_EQ(queue.Take(kNow)->count, 32);
}

TEST(ChunkQueueTest, EachTimeThreeRefusalsInARowShrinkALoneChunk) {
  ChunkQueue queue("m", {1000, 64, 1, 1}, kNoDeadline);
  PushBackAlone(&queue, 2);
  Succeed(&queue, 1, 64);
  PushBackAlone(&queue, 2);
  Succeed(&queue, 1, 64);
  PushBackAlone(&queue, 3);
  EXPECT_EQ(queue.Take(kNow)->count, 32);
}

TEST(ChunkQueueTest, AfterShrinkingThreeMoreRefusalsAreNeeded) {
  ChunkQueue queue("m", {64, 64, 1, 1}, kNoDeadline);
  PushBackAlone(&queue, 5);
  const Chunk chunk = *queue.Take(kNow);
  EXPECT_EQ(chunk.count, 32);
  queue.PushBack(chunk, kBusy, kNow);
  EXPECT_EQ(queue.Take(kNow)->count, 16);
}

// The server may be full of the others.
TEST(ChunkQueueTest, AChunkThatIsRefusedWhileOthersAreUnderWayDoesNotShrink) {
  ChunkQueue queue("m", {1000, 64, 1, 4}, kNoDeadline);
  std::vector<Chunk> chunks;
  for (int i = 0; i < 4; ++i) chunks.push_back(*queue.Take(kNow));
  for (int i = 0; i < 3; ++i) queue.PushBack(chunks[i], kBusy, kNow);
  queue.Succeed("");
  EXPECT_EQ(queue.Take(kNow)->count, 64);
}

TEST(ChunkQueueTest, ChunksGrowAgainAfterSuccesses) {
  ChunkQueue queue("m", {1000, 50, 10, 1}, kNoDeadline);
  PushBackAlone(&queue, 3);
  Succeed(&queue, 2, 20);
  Succeed(&queue, 1, 10);  // the rest of the one of 50
  Succeed(&queue, 5, 20);
  Succeed(&queue, 8, 40);
  Succeed(&queue, 10, 50);
}

TEST(ChunkQueueTest, ChunksDoNotGrowToWhatIsTooLarge) {
  ChunkQueue queue("m", {1000, 64, 1, 1}, kNoDeadline);
  queue.Shrink(*queue.Take(kNow), kTooLarge);
  Succeed(&queue, 20, 32);
}

// It was sent before the smaller ones.
TEST(ChunkQueueTest, ALargeChunkThatComesBackLateDoesNotMakeOthersLarger) {
  ChunkQueue queue("m", {1000, 64, 1, 2}, kNoDeadline);
  const Chunk first = *queue.Take(kNow), late = *queue.Take(kNow);
  queue.Shrink(first, kTooLarge);
  queue.Shrink(*queue.Take(kNow), kTooLarge);
  queue.Shrink(late, kTooLarge);
  EXPECT_EQ(queue.Take(kNow)->count, 16);
}

TEST(ChunkQueueTest, ProgressCountsTheSmallerChunksThatAreLeft) {
  ChunkQueue queue("m", {100, 50, 1, 2}, kNoDeadline);
  const Chunk first = *queue.Take(kNow);
  ASSERT_TRUE(queue.Take(kNow));
  queue.Shrink(first, kTooLarge);
  const absl::optional<ChunkProgress> progress = queue.Succeed("");
  ASSERT_TRUE(progress);
  EXPECT_EQ(progress->num_done, 1);
  EXPECT_EQ(progress->num_chunks, 3) << "the one of 50, and two of 25";
}

TEST(ChunkQueueTest, FailsWhenTheServerAllowsAChunkTooLate) {
  const absl::Time deadline = kNow + absl::Seconds(100), last = deadline - absl::Nanoseconds(1);
  ChunkQueue queue("m", {8, 4, 1, 1}, deadline);
  queue.PushBack(*queue.Take(kNow), kBusy, last);
  queue.PushBack(*queue.Take(last), kBusy, deadline);
  EXPECT_FALSE(queue.Take(deadline));
  EXPECT_EQ(queue.Result().status(), kBusy);
}

TEST(ChunkQueueTest, KeepsTheFirstError) {
  ChunkQueue queue("m", {8, 1, 1, 3}, kNoDeadline);
  for (int i = 0; i < 2; ++i) ASSERT_TRUE(queue.Take(kNow));
  queue.Fail(absl::InternalError("first"));
  queue.Fail(absl::InternalError("second"));
  EXPECT_FALSE(queue.Take(kNow));
  EXPECT_EQ(queue.Result().status(), absl::InternalError("first"));
}

TEST(ChunkQueueTest, FailsIfTheWeightsChange) {
  ChunkQueue queue("mlp_m_0_forward", {2, 1, 1, 1}, kNoDeadline);
  ASSERT_TRUE(queue.Take(kNow));
  EXPECT_TRUE(queue.Succeed("old"));
  ASSERT_TRUE(queue.Take(kNow));
  EXPECT_FALSE(queue.Succeed("new"));
  EXPECT_EQ(
      queue.Result().status(),
      absl::AbortedError("the weights of 'mlp_m_0_forward' changed during the call; try again"));
}

TEST(ChunkQueueTest, NothingBeginsAfterAStop) {
  ChunkQueue queue("m", {8, 1, 1, 2}, kNoDeadline);
  ASSERT_TRUE(queue.Take(kNow));
  queue.Stop(absl::CancelledError("enough"));
  EXPECT_FALSE(queue.Take(kNow));
  queue.Succeed("");
  EXPECT_FALSE(queue.Take(kNow));
  EXPECT_EQ(queue.Result().status(), absl::CancelledError("enough"));
}

// Chunks that succeed, are pushed back and shrink at random: every element is done once.
TEST(ChunkQueueTest, EveryElementIsDoneOnceWhateverHappens) {
  for (uint32_t seed = 0; seed < 80; ++seed) {
    ChunkQueue queue("m", {1000, 64, 2, 4}, kNoDeadline);
    std::minstd_rand random(seed + 1);
    std::vector<Chunk> under_way;
    std::vector<int> num_done(1000);
    while (true) {
      while (const absl::optional<Chunk> chunk = queue.Take(kNow)) under_way.push_back(*chunk);
      if (under_way.empty()) break;
      ASSERT_LE(under_way.size(), 4u);
      const auto position = under_way.begin() + static_cast<int>(random() % under_way.size());
      const Chunk chunk = *position;
      under_way.erase(position);
      const auto event = random() % 4;
      if (event == 0) {
        queue.PushBack(chunk, kBusy, kNow);
      } else if (event == 1 && chunk.count >= 4) {
        queue.Shrink(chunk, kTooLarge);
      } else {
        for (int64_t i = 0; i < chunk.count; ++i) ++num_done[chunk.first + i];
        queue.Succeed("w");
      }
    }
    EXPECT_EQ(*queue.Result(), "w");
    EXPECT_EQ(std::count(num_done.begin(), num_done.end(), 1), 1000) << seed;
  }
}

}  // namespace
}  // namespace swiglu::client
