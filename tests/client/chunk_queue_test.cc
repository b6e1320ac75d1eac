// SPDX-License-Identifier: Apache-2.0
//
// The chunks of a split operation: order, width, sizes, and the end.
#include "client/chunk_queue.h"

#include <algorithm>
#include <atomic>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "gtest/gtest.h"

namespace swiglu::client {
namespace {

const absl::Status kBusy = absl::UnavailableError("busy");
const absl::Status kTooLarge = absl::ResourceExhaustedError("too large");

constexpr absl::Time kNoDeadline = absl::InfiniteFuture();

TEST(ChunkQueueTest, HandsOutAllElementsInOrder) {
  ChunkQueue queue("m", {10, 4, 1, 3}, kNoDeadline);
  std::vector<int64_t> counts;
  for (int64_t first = 0; const int64_t count : {4, 4, 2}) {
    const absl::optional<Chunk> chunk = queue.Take();
    ASSERT_TRUE(chunk);
    EXPECT_EQ(chunk->first, first);
    EXPECT_EQ(chunk->count, count);
    first += count;
    const auto progress = queue.Succeed(*chunk, "w");
    ASSERT_TRUE(progress);
    EXPECT_EQ(progress->num_chunks, 3);
  }
  EXPECT_FALSE(queue.Take());
  EXPECT_EQ(*queue.Result(), "w");
}

TEST(ChunkQueueTest, AChunkThatIsPushedBackComesAgain) {
  ChunkQueue queue("m", {8, 4, 1, 2}, kNoDeadline);
  const Chunk first = *queue.Take(), second = *queue.Take();
  queue.PushBack(first, kBusy, absl::ZeroDuration());
  queue.Succeed(second, "");
  const Chunk again = *queue.Take();
  EXPECT_EQ(again.first, first.first);
  EXPECT_EQ(again.count, first.count);
  queue.Succeed(again, "");
  EXPECT_FALSE(queue.Take());
  EXPECT_TRUE(queue.Result().ok());
}

TEST(ChunkQueueTest, NoChunkBeginsBeforeTheServerAllowsIt) {
  ChunkQueue queue("m", {8, 4, 1, 2}, kNoDeadline);
  const absl::Time start = absl::Now();
  queue.PushBack(*queue.Take(), kBusy, absl::Milliseconds(30));
  EXPECT_TRUE(queue.Take());
  EXPECT_GE(absl::Now() - start, absl::Milliseconds(30));
}

// With two of three under way after a refusal, the third waits until one of them has ended.
TEST(ChunkQueueTest, KeepsOnlyAsManyUnderWayAsTheServerTook) {
  ChunkQueue queue("m", {100, 1, 1, 3}, kNoDeadline);
  const Chunk a = *queue.Take(), b = *queue.Take(), c = *queue.Take();
  queue.PushBack(c, kBusy, absl::ZeroDuration());
  std::atomic<bool> has_ended = false;
  std::thread other([&] {
    ASSERT_TRUE(queue.Take());
    EXPECT_TRUE(has_ended) << "three under way";
  });
  absl::SleepFor(absl::Milliseconds(20));  // so that a chunk too many would be taken by now
  has_ended = true;
  queue.Succeed(a, "");
  other.join();
  queue.Succeed(b, "");
}

TEST(ChunkQueueTest, WidensAgainAfterSuccesses) {
  ChunkQueue queue("m", {1000, 1, 1, 2}, kNoDeadline);
  const Chunk a = *queue.Take(), b = *queue.Take();
  queue.PushBack(a, kBusy, absl::ZeroDuration());
  queue.Succeed(b, "");
  for (int i = 0; i < 7; ++i) queue.Succeed(*queue.Take(), "");
  ASSERT_TRUE(queue.Take());
  EXPECT_TRUE(queue.Take()) << "a second one, without waiting for the first";
}

TEST(ChunkQueueTest, ChunksShrinkToHalfUntilTheServerTakesThem) {
  ChunkQueue queue("m", {64, 64, 4, 1}, kNoDeadline);
  for (const int64_t count : {64, 32, 16, 8, 4}) {
    const Chunk chunk = *queue.Take();
    EXPECT_EQ(chunk.first, 0);
    EXPECT_EQ(chunk.count, count);
    queue.Shrink(chunk, kTooLarge);
  }
  EXPECT_FALSE(queue.Take()) << "4 is the least";
  EXPECT_EQ(queue.Result().status(), kTooLarge);
}

TEST(ChunkQueueTest, ChunksStayMultiplesOfTheLeast) {
  ChunkQueue queue("m", {70, 50, 10, 1}, kNoDeadline);
  queue.Shrink(*queue.Take(), kTooLarge);
  std::vector<int64_t> counts;
  while (const absl::optional<Chunk> chunk = queue.Take()) {
    counts.push_back(chunk->count);
    queue.Succeed(*chunk, "");
  }
  EXPECT_EQ(counts, (std::vector<int64_t>{20, 20, 10, 20}));
}

// A lone chunk that is refused again and again is too large for the server.
TEST(ChunkQueueTest, AChunkThatIsRefusedAloneShrinks) {
  ChunkQueue queue("m", {64, 64, 1, 1}, kNoDeadline);
  for (int i = 0; i < 3; ++i) {
    const Chunk chunk = *queue.Take();
    EXPECT_EQ(chunk.count, 64) << i;
    queue.PushBack(chunk, kBusy, absl::ZeroDuration());
  }
  EXPECT_EQ(queue.Take()->count, 32);
}

TEST(ChunkQueueTest, ChunksGrowAgainAfterSuccesses) {
  ChunkQueue queue("m", {1000, 64, 1, 1}, kNoDeadline);
  for (int i = 0; i < 3; ++i) queue.PushBack(*queue.Take(), kBusy, absl::ZeroDuration());
  for (int i = 0; i < 8; ++i) {
    const Chunk chunk = *queue.Take();
    EXPECT_EQ(chunk.count, 32) << i;
    queue.Succeed(chunk, "");
  }
  EXPECT_EQ(queue.Take()->count, 64);
}

TEST(ChunkQueueTest, ChunksDoNotGrowToWhatIsTooLarge) {
  ChunkQueue queue("m", {1000, 64, 1, 1}, kNoDeadline);
  queue.Shrink(*queue.Take(), kTooLarge);
  for (int i = 0; i < 20; ++i) {
    const Chunk chunk = *queue.Take();
    EXPECT_EQ(chunk.count, 32) << i;
    queue.Succeed(chunk, "");
  }
}

TEST(ChunkQueueTest, FailsWhenTheServerAllowsAChunkTooLate) {
  ChunkQueue queue("m", {8, 4, 1, 1}, absl::Now() + absl::Seconds(100));
  queue.PushBack(*queue.Take(), kBusy, absl::Seconds(101));
  EXPECT_FALSE(queue.Take());
  EXPECT_EQ(queue.Result().status(), kBusy);
}

TEST(ChunkQueueTest, KeepsTheFirstError) {
  ChunkQueue queue("m", {8, 1, 1, 3}, kNoDeadline);
  for (int i = 0; i < 2; ++i) ASSERT_TRUE(queue.Take());
  queue.Fail(absl::InternalError("first"));
  queue.Fail(absl::InternalError("second"));
  EXPECT_FALSE(queue.Take());
  EXPECT_EQ(queue.Result().status(), absl::InternalError("first"));
}

TEST(ChunkQueueTest, FailsIfTheWeightsChange) {
  ChunkQueue queue("mlp_m_0_forward", {2, 1, 1, 1}, kNoDeadline);
  EXPECT_TRUE(queue.Succeed(*queue.Take(), "old"));
  EXPECT_FALSE(queue.Succeed(*queue.Take(), "new"));
  EXPECT_EQ(
      queue.Result().status(),
      absl::AbortedError("the weights of 'mlp_m_0_forward' changed during the call; try again"));
}

TEST(ChunkQueueTest, RethrowsAnException) {
  ChunkQueue queue("m", {8, 1, 1, 1}, kNoDeadline);
  const Chunk chunk = *queue.Take();
  queue.Throw(std::make_exception_ptr(std::runtime_error("enough")));
  queue.Succeed(chunk, "");
  EXPECT_FALSE(queue.Take());
  EXPECT_THROW((void)queue.Result(), std::runtime_error);
}

// Threads whose chunks succeed, are pushed back and shrink at random: every element is done once.
TEST(ChunkQueueTest, EveryElementIsDoneOnceWhateverHappens) {
  for (uint32_t seed = 0; seed < 20; ++seed) {
    ChunkQueue queue("m", {1000, 64, 2, 4}, kNoDeadline);
    absl::Mutex mutex;
    std::vector<int> num_done(1000);
    const auto work = [&](uint32_t thread) {
      std::minstd_rand random(seed * 16 + thread + 1);
      while (const absl::optional<Chunk> chunk = queue.Take()) {
        const auto event = random() % 4;
        if (event == 0) {
          queue.PushBack(*chunk, kBusy, absl::ZeroDuration());
        } else if (event == 1 && chunk->count >= 4) {
          queue.Shrink(*chunk, kTooLarge);
        } else {
          {
            absl::MutexLock lock(&mutex);
            for (int64_t i = 0; i < chunk->count; ++i) ++num_done[chunk->first + i];
          }
          queue.Succeed(*chunk, "w");
        }
      }
    };
    std::vector<std::thread> threads;
    for (uint32_t thread = 0; thread < 4; ++thread) threads.emplace_back(work, thread);
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(*queue.Result(), "w");
    EXPECT_EQ(std::count(num_done.begin(), num_done.end(), 1), 1000) << seed;
  }
}

}  // namespace
}  // namespace swiglu::client
