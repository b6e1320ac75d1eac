// SPDX-License-Identifier: Apache-2.0
//
// The slab pool over a memory source that counts: reuse, bound, eviction, poison, threads.
#include "server/memory/slab_pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <functional>
#include <random>
#include <thread>
#include <utility>

#include "absl/synchronization/notification.h"
#include "tests/byte_units.h"

namespace swiglu::server {
namespace {

// Plain memory that counts, refuses on demand, and can be made to dwell in `Allocate`.
class FakeSource final : public MemorySource {
 public:
  absl::StatusOr<std::byte*> Allocate(size_t size_bytes) override {
    if (on_allocate) on_allocate(size_bytes);
    if (refuse || (refuse_while && refuse_while())) {
      if (on_refuse) on_refuse();
      return absl::ResourceExhaustedError("the source is empty");
    }
    const size_t live = live_bytes += size_bytes;
    size_t seen = most_live_bytes;
    while (seen < live && !most_live_bytes.compare_exchange_weak(seen, live)) {
    }
    ++num_allocations;
    return memory_->Allocate(size_bytes);
  }

  void Free(std::byte* data, size_t size_bytes) noexcept override {
    live_bytes -= size_bytes;
    ++num_frees;
    memory_->Free(data, size_bytes);
  }

  std::function<void(size_t)> on_allocate;
  std::function<bool()> refuse_while;
  std::function<void()> on_refuse;
  std::atomic<bool> refuse{false};
  std::atomic<size_t> live_bytes{0};
  std::atomic<size_t> most_live_bytes{0};
  std::atomic<int> num_allocations{0};
  std::atomic<int> num_frees{0};

 private:
  const std::unique_ptr<MemorySource> memory_ = MakeHostMemory();
};

class SlabPoolTest : public testing::Test {
 protected:
  void MakePool(CachingSlabPoolOptions options) {
    auto source = std::make_unique<FakeSource>();
    source_ = source.get();
    pool_ = std::make_unique<CachingSlabPool>(std::move(source), options);
  }

  Slab MustAcquire(size_t size_bytes) {
    absl::StatusOr<Slab> slab = pool_->Acquire(size_bytes);
    EXPECT_TRUE(slab.ok()) << slab.status();
    return slab.ok() ? *slab : Slab();
  }

  FakeSource* source_ = nullptr;  // owned by the pool
  std::unique_ptr<CachingSlabPool> pool_;
};

TEST_F(SlabPoolTest, GivesUpItsCacheWhereTheSourceHasNoMore) {
  MakePool({.capacity_bytes = size_t{64} << 20});
  for (const size_t size_bytes : {4 * kKiB, 64 * kKiB}) MustAcquire(size_bytes);
  ASSERT_GT(pool_->cached_bytes(), 0u);
  // Refuses until all that was cached is free.
  source_->on_allocate = [this](size_t) { source_->refuse = source_->live_bytes > 0; };
  const Slab slab = MustAcquire(1024 * kKiB);
  EXPECT_EQ(source_->num_frees, 2);
  EXPECT_EQ(pool_->cached_bytes(), 0u);
}

TEST_F(SlabPoolTest, FreesNoMoreOfItsCacheThanTheSourceLacks) {
  MakePool({.capacity_bytes = size_t{64} << 20});
  for (const size_t size_bytes : {4 * kKiB, 64 * kKiB, 128 * kKiB}) MustAcquire(size_bytes);
  source_->on_allocate = [this](size_t) { source_->refuse = source_->num_frees == 0; };
  const Slab slab = MustAcquire(32 * kKiB);
  EXPECT_EQ(source_->num_frees, 1);
  EXPECT_EQ(pool_->cached_bytes(), 68 * kKiB);
}

// Two misses are refused before either has freed the cache: the one that finds it empty is served
// from what the other one freed.
TEST_F(SlabPoolTest, TwoMissesThatFindNoMemoryAtOnceAreBothServed) {
  MakePool({.capacity_bytes = size_t{64} << 20});
  MustAcquire(1024 * kKiB);
  std::atomic<int> num_refused{0};
  source_->on_refuse = [&] {
    ++num_refused;
    while (num_refused < 2) std::this_thread::yield();
  };
  source_->refuse_while = [this] { return source_->num_frees == 0; };
  Slab first, second;
  std::thread other([&] { first = MustAcquire(64 * kKiB); });
  second = MustAcquire(32 * kKiB);
  other.join();
  EXPECT_EQ(num_refused, 2);
  EXPECT_EQ(source_->num_frees, 1);
}

TEST_F(SlabPoolTest, HandsOutAlignedSlabsOfAtLeastWhatWasAskedFor) {
  MakePool({.capacity_bytes = size_t{64} << 20});
  for (size_t size_bytes :
       {size_t{1}, size_t{256}, size_t{4 * kKiB + 1}, size_t{33 * kKiB}, size_t{1} << 20}) {
    const Slab slab = MustAcquire(size_bytes);
    EXPECT_GE(slab.size_bytes, size_bytes);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(slab.data.get()) % kSlabAlignment, 0u);
    std::memset(slab.data.get(), 0x5A, slab.size_bytes);
  }
}

TEST_F(SlabPoolTest, ReusesAReturnedSlabForAnotherSizeOfItsClass) {
  MakePool({.capacity_bytes = 1024 * kKiB});
  std::byte* first = MustAcquire(17 * kKiB).data.get();
  EXPECT_EQ(MustAcquire(20 * kKiB).data.get(), first);
  EXPECT_EQ(source_->num_allocations, 1);
}

TEST_F(SlabPoolTest, HandsOutTheSlabThatCameBackLast) {
  MakePool({.capacity_bytes = 1024 * kKiB});
  Slab a = MustAcquire(4 * kKiB);
  Slab b = MustAcquire(4 * kKiB);
  std::byte* const last = a.data.get();
  b.data.reset();
  a.data.reset();
  EXPECT_EQ(MustAcquire(4 * kKiB).data.get(), last);
}

TEST_F(SlabPoolTest, KeepsASlabUntilItsLastCopyIsGone) {
  MakePool({.capacity_bytes = 1024 * kKiB});
  Slab slab = MustAcquire(8 * kKiB);
  Slab copy = slab;
  slab.data.reset();
  EXPECT_EQ(pool_->used_bytes(), 8 * kKiB);
  EXPECT_EQ(pool_->cached_bytes(), 0u);
  copy.data.reset();
  EXPECT_EQ(pool_->used_bytes(), 0u);
  EXPECT_EQ(pool_->cached_bytes(), 8 * kKiB);
}

TEST_F(SlabPoolTest, FreesCachedSlabsOfOtherClassesBeforeItExceedsItsCapacity) {
  MakePool({.capacity_bytes = 64 * kKiB});
  MustAcquire(16 * kKiB);
  MustAcquire(32 * kKiB);
  EXPECT_EQ(pool_->cached_bytes(), 48 * kKiB);

  const Slab slab = MustAcquire(24 * kKiB);  // fits once the 32 KiB are free
  EXPECT_EQ(source_->num_frees, 1);
  EXPECT_EQ(pool_->used_bytes(), 24 * kKiB);
  EXPECT_EQ(pool_->cached_bytes(), 16 * kKiB);
  EXPECT_LE(source_->most_live_bytes, 64 * kKiB);
}

TEST_F(SlabPoolTest, UsesItsCapacityToTheLastByte) {
  MakePool({.capacity_bytes = 64 * kKiB});
  const Slab a = MustAcquire(32 * kKiB);
  const Slab b = MustAcquire(32 * kKiB);
  EXPECT_EQ(pool_->used_bytes(), 64 * kKiB);
}

TEST_F(SlabPoolTest, RefusesWhatDoesNotFitBesideTheSlabsInUseAndKeepsItsCache) {
  MakePool({.capacity_bytes = 64 * kKiB});
  const Slab held = MustAcquire(40 * kKiB);
  MustAcquire(4 * kKiB);
  const absl::StatusOr<Slab> refused = pool_->Acquire(30000);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(refused.status().message(),
            "a slab of 30000 bytes was asked for; 40960 of 65536 bytes are in use");
  EXPECT_EQ(pool_->used_bytes(), 40 * kKiB);
  EXPECT_EQ(pool_->cached_bytes(), 4 * kKiB);
}

TEST_F(SlabPoolTest, RefusesWhatCanNeverFit) {
  MakePool({.capacity_bytes = 64 * kKiB});
  for (size_t size_bytes : {size_t{65 * kKiB}, ~size_t{0}}) {
    const absl::StatusOr<Slab> refused = pool_->Acquire(size_bytes);
    EXPECT_EQ(refused.status().code(), absl::StatusCode::kResourceExhausted);
  }
  EXPECT_EQ(pool_->Acquire(66560).status().message(),
            "a slab of 66560 bytes does not fit into a pool of 65536 bytes");
}

TEST_F(SlabPoolTest, ServesAgainAfterARefusal) {
  MakePool({.capacity_bytes = 64 * kKiB});
  Slab held = MustAcquire(64 * kKiB);
  EXPECT_FALSE(pool_->Acquire(1).ok());
  held.data.reset();
  EXPECT_TRUE(pool_->Acquire(1).ok());
}

TEST_F(SlabPoolTest, PassesOnTheSourcesErrorAndCountsNothing) {
  MakePool({.capacity_bytes = 64 * kKiB});
  source_->refuse = true;
  EXPECT_EQ(pool_->Acquire(4 * kKiB).status(), absl::ResourceExhaustedError("the source is empty"));
  EXPECT_EQ(pool_->used_bytes(), 0u);
  source_->refuse = false;
  EXPECT_TRUE(pool_->Acquire(64 * kKiB).ok());
}

TEST_F(SlabPoolTest, ReserveMakesLaterRequestsHits) {
  MakePool({.capacity_bytes = 1024 * kKiB});
  ASSERT_TRUE(pool_->Reserve({4 * kKiB, 4 * kKiB, 32 * kKiB}).ok());
  EXPECT_EQ(pool_->used_bytes(), 0u);
  EXPECT_EQ(pool_->cached_bytes(), 40 * kKiB);
  const Slab a = MustAcquire(1), b = MustAcquire(1), c = MustAcquire(30 * kKiB);
  EXPECT_EQ(source_->num_allocations, 3);
}

TEST_F(SlabPoolTest, PoisonsFreshAndReturnedSlabs) {
  MakePool({.capacity_bytes = 64 * kKiB, .poison = uint8_t{0xA5}});
  const auto is_poisoned = [](const std::byte* data) {
    return std::all_of(data, data + 4 * kKiB, [](std::byte b) { return b == std::byte{0xA5}; });
  };
  Slab slab = MustAcquire(4 * kKiB);
  std::byte* const data = slab.data.get();
  EXPECT_TRUE(is_poisoned(data));
  std::memset(data, 0, 4 * kKiB);
  slab.data.reset();
  EXPECT_TRUE(is_poisoned(data));  // cached, so still there to look at
  std::memset(data, 0, 4 * kKiB);
  EXPECT_TRUE(is_poisoned(MustAcquire(4 * kKiB).data.get()));
}

TEST_F(SlabPoolTest, ServesHitsReturnsAndOtherMissesWhileASourceDwells) {
  MakePool({.capacity_bytes = 1024 * kKiB});
  MustAcquire(4 * kKiB);
  absl::Notification dwelling, go_on;
  source_->on_allocate = [&](size_t size_bytes) {
    if (size_bytes != 64 * kKiB) return;
    dwelling.Notify();
    go_on.WaitForNotification();
  };
  std::thread slow([&] { MustAcquire(64 * kKiB); });
  dwelling.WaitForNotification();
  MustAcquire(4 * kKiB);
  MustAcquire(32 * kKiB);
  EXPECT_EQ(pool_->used_bytes(), 64 * kKiB);  // the slow one is counted before it is there
  go_on.Notify();
  slow.join();
}

TEST_F(SlabPoolTest, DestructorFreesEverything) {
  static std::atomic<int> num_live;
  num_live = 0;
  class CountingSource final : public MemorySource {
   public:
    absl::StatusOr<std::byte*> Allocate(size_t size_bytes) override {
      ++num_live;
      return new std::byte[size_bytes];
    }
    void Free(std::byte* data, size_t) noexcept override {
      --num_live;
      delete[] data;
    }
  };
  {
    CachingSlabPool pool(std::make_unique<CountingSource>(), {.capacity_bytes = 1024 * kKiB});
    ASSERT_TRUE(pool.Reserve({4 * kKiB, 8 * kKiB, 8 * kKiB}).ok());
    EXPECT_EQ(num_live, 3);
  }
  EXPECT_EQ(num_live, 0);
}

// Many threads, more demand than capacity: nobody gets another's slab, the bound holds, nothing is
// lost.
TEST_F(SlabPoolTest, HoldsItsBoundAndKeepsSlabsApartUnderManyThreads) {
  constexpr size_t kCapacity = 512 * kKiB;
  MakePool({.capacity_bytes = kCapacity});
  std::atomic<int> num_served{0}, num_refused{0}, num_mixed_up{0};
  const auto hammer = [&](int seed) {
    std::mt19937 random(seed);
    std::vector<Slab> held;
    for (int i = 0; i < 3000; ++i) {
      absl::StatusOr<Slab> slab = pool_->Acquire(1 + random() % (100 * kKiB));
      if (slab.ok()) {
        ++num_served;
        std::memset(slab->data.get(), seed, 256);
        held.push_back(*std::move(slab));
      } else {
        ++num_refused;
      }
      if (!slab.ok() || held.size() > 3) {
        for (const Slab& mine : held) {
          if (mine.data.get()[random() % 256] != std::byte(seed)) ++num_mixed_up;
        }
        held.clear();
      }
    }
  };
  std::vector<std::thread> threads;
  for (int seed = 1; seed <= 8; ++seed) threads.emplace_back(hammer, seed);
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(num_mixed_up, 0);
  EXPECT_GT(num_served, 0);
  EXPECT_GT(num_refused, 0);
  EXPECT_GT(source_->num_frees, 0);
  EXPECT_LE(source_->most_live_bytes, kCapacity);
  EXPECT_EQ(pool_->used_bytes(), 0u);
  EXPECT_EQ(pool_->cached_bytes(), source_->live_bytes);
}

}  // namespace
}  // namespace swiglu::server
