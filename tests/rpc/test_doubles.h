// SPDX-License-Identifier: Apache-2.0
//
// The server's two ends in a test: an executor that holds its batches and counts its memory, and an
// observer that can be waited for.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "server/core/clock.h"
#include "server/core/executor.h"
#include "server/core/model.h"
#include "server/core/observer.h"

namespace swiglu::server {

// The longest that a test waits for anything. It is reached only by a test that fails.
inline constexpr absl::Duration kPatience = absl::Seconds(20);

// Looks at `condition`, which nobody announces, until it holds. False if it never does.
inline bool Eventually(const std::function<bool()>& condition) {
  const absl::Time end = absl::Now() + kPatience;
  while (!condition()) {
    if (absl::Now() > end) return false;
    std::this_thread::yield();
  }
  return true;
}

// Lets some time pass that counts for a request that is held.
inline void Pass(std::chrono::milliseconds time) {
  const Clock::time_point end = Clock::now() + time;
  ASSERT_TRUE(Eventually([end] { return Clock::now() > end; }));
}

// Plain memory, counted. Thread-safe.
class CountingSlabPool final : public SlabPool {
 public:
  size_t SlabBytes(size_t size_bytes) const override {
    return (size_bytes + kSlabAlignment - 1) / kSlabAlignment * kSlabAlignment;
  }
  absl::StatusOr<Slab> Acquire(size_t size_bytes) override {
    if (fail_.load()) return absl::ResourceExhaustedError("no memory for the test");
    const size_t size = SlabBytes(size_bytes);
    auto* data = static_cast<std::byte*>(std::aligned_alloc(kSlabAlignment, size));
    num_live_.fetch_add(1);
    return Slab{std::shared_ptr<std::byte>(data,
                                           [this](std::byte* memory) {
                                             std::free(memory);
                                             num_live_.fetch_sub(1);
                                           }),
                size};
  }

  // From here on there is no memory, or there is again.
  void SetFailing(bool fail) { fail_.store(fail); }
  int num_live() const { return num_live_.load(); }

 private:
  std::atomic<bool> fail_{false};
  std::atomic<int> num_live_{0};
};

// How an executor wants its inputs.
enum class InputForm { kWhole, kInPieces };

// Holds every batch until it is told how to end it. It computes nothing: the outputs are the
// inputs, and every element of gradient g is g + 1. Thread-safe.
class HoldingExecutor final : public Executor {
 public:
  explicit HoldingExecutor(int num_lanes = 1, int64_t max_batch_bytes = int64_t{1} << 20,
                           InputForm input_form = InputForm::kWhole)
      : num_lanes_(num_lanes), max_batch_bytes_(max_batch_bytes), input_form_(input_form) {}

  int num_lanes() const override { return num_lanes_; }
  int num_mlp_lanes() const override { return num_lanes_; }
  int max_segments() const override { return 256; }
  int64_t max_batch_bytes() const override { return max_batch_bytes_; }
  bool TakesReaders() const override { return input_form_ == InputForm::kInPieces; }
  void Run(const Batch& batch, Done done) override {
    absl::ReleasableMutexLock lock(&mutex_);
    batch_sizes_.push_back(batch.segments.size());
    alone_.push_back(batch.is_alone);
    if (!released_) {
      held_.push_back({&batch, std::move(done)});
      return;
    }
    lock.Release();
    End({&batch, std::move(done)}, Execution());
  }
  bool healthy() const override { return healthy_.load(); }
  SlabPool& slab_pool() override { return slab_pool_; }
  std::string description() const override { return "holding"; }

  // Waits until so many batches are held. False if they do not come.
  bool AwaitHeld(size_t count = 1) {
    const auto held = [this, count]()
                          ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return held_.size() >= count; };
    absl::MutexLock lock(&mutex_);
    return mutex_.AwaitWithTimeout(absl::Condition(&held), kPatience);
  }
  // Ends the oldest batch that is held, or the one at `index`. REQUIRES: there is one.
  void Complete(absl::Status status = absl::OkStatus(), size_t index = 0) {
    Execution execution;
    execution.status = std::move(status);
    CompleteWith(execution, index);
  }
  void CompleteWith(const Execution& execution, size_t index = 0) {
    HeldBatch held;
    {
      absl::MutexLock lock(&mutex_);
      held = std::move(held_[index]);
      held_.erase(held_.begin() + index);
    }
    End(std::move(held), execution);
  }
  // Ends what is held, and from here on every batch at once.
  void Release() {
    std::vector<HeldBatch> all_held;
    {
      absl::MutexLock lock(&mutex_);
      released_ = true;
      all_held = std::move(held_);
      held_.clear();
    }
    for (HeldBatch& held : all_held) End(std::move(held), Execution());
  }
  void Fail() { healthy_.store(false); }

  // Segments of every batch so far.
  std::vector<size_t> batch_sizes() const {
    absl::MutexLock lock(&mutex_);
    return batch_sizes_;
  }
  // Whether the request of each was said to be alone.
  std::vector<bool> alone() const {
    absl::MutexLock lock(&mutex_);
    return alone_;
  }
  CountingSlabPool& counting_pool() { return slab_pool_; }

 private:
  struct HeldBatch {
    const Batch* batch = nullptr;
    Done done;
  };

  // Pieces are read only now, so that they have to be there until the end.
  static void End(HeldBatch held, const Execution& execution) {
    const Model& model = *held.batch->model;
    for (const Segment& segment : held.batch->segments) {
      if (!execution.status.ok()) continue;
      for (size_t g = 0; g < model.gradients.size(); ++g) {
        if (segment.gradients[g] == nullptr) continue;
        const auto size = static_cast<size_t>(model.gradients[g].size_bytes()) / sizeof(float);
        std::fill_n(segment.gradients[g], size, static_cast<float>(g + 1));
      }
      if (segment.reader == nullptr) continue;
      for (size_t k = 0; k < model.outputs.size(); ++k) {
        if (segment.outputs[k] == nullptr) continue;
        segment.reader->Read(static_cast<int>(k), segment.outputs[k],
                             static_cast<size_t>(segment.num_elements * ElementBytes(model.dtype)));
      }
    }
    held.done(execution);
  }

  const int num_lanes_;
  const int64_t max_batch_bytes_;
  const InputForm input_form_;
  CountingSlabPool slab_pool_;
  std::atomic<bool> healthy_{true};
  mutable absl::Mutex mutex_;
  bool released_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<HeldBatch> held_ ABSL_GUARDED_BY(mutex_);
  std::vector<size_t> batch_sizes_ ABSL_GUARDED_BY(mutex_);
  std::vector<bool> alone_ ABSL_GUARDED_BY(mutex_);
};

// How long a request took in all, and to be sent.
struct SentTimes {
  std::chrono::nanoseconds total;
  std::chrono::nanoseconds send;
};

// Writes down what it is told; a test can wait for it. Thread-safe.
class WaitableObserver final : public Observer {
 public:
  void RequestFinished(const RequestRecord& record) override {
    if (record.rejection.has_value()) Keep(rejected_, *record.rejection);
    Keep(finished_, record);
  }
  void RequestSent(const Model* model, std::chrono::nanoseconds total,
                   std::chrono::nanoseconds send) override {
    Keep(sent_times_, {total, send});
    Keep(sent_, model);
  }
  void RetryAdvised() override { num_retries_advised_.fetch_add(1); }
  void BatchFinished(const BatchRecord& record) override { Keep(batches_, record); }
  void DeviceFailed(int, DeviceError) override {}

  // Waits for that many finished requests, and returns all there are.
  std::vector<RequestRecord> AwaitFinished(size_t count) { return Await(finished_, count); }
  std::vector<const Model*> AwaitSent(size_t count) { return Await(sent_, count); }
  std::vector<SentTimes> sent_times() { return Await(sent_times_, 0); }
  std::vector<Rejection> AwaitRejected(size_t count) { return Await(rejected_, count); }
  std::vector<BatchRecord> batches() { return Await(batches_, 0); }
  size_t num_finished() { return Await(finished_, 0).size(); }
  int num_retries_advised() const { return num_retries_advised_.load(); }
  // The codes of all finished requests, in order.
  std::vector<absl::StatusCode> AwaitCodes(size_t count) {
    std::vector<absl::StatusCode> codes;
    for (const RequestRecord& record : AwaitFinished(count)) codes.push_back(record.status.code());
    return codes;
  }

 private:
  template <typename T>
  void Keep(std::vector<T>& list, const T& value) {
    absl::MutexLock lock(&mutex_);
    list.push_back(value);
  }
  template <typename T>
  std::vector<T> Await(const std::vector<T>& list, size_t count) {
    const auto enough = [&list, count] { return list.size() >= count; };
    absl::MutexLock lock(&mutex_);
    EXPECT_TRUE(mutex_.AwaitWithTimeout(absl::Condition(&enough), kPatience))
        << list.size() << " of " << count;
    return list;
  }

  absl::Mutex mutex_;
  std::vector<RequestRecord> finished_;
  std::vector<const Model*> sent_;
  std::vector<SentTimes> sent_times_;
  std::vector<Rejection> rejected_;
  std::vector<BatchRecord> batches_;
  std::atomic<int> num_retries_advised_{0};
};

}  // namespace swiglu::server
