// SPDX-License-Identifier: Apache-2.0
//
// The batcher over a fake executor: work conservation, and that each accepted request is finished
// exactly once.
#include "server/batching/batcher.h"

#include <gtest/gtest.h>

#include <random>
#include <thread>

#include "absl/synchronization/blocking_counter.h"
#include "tests/batching/fakes.h"

namespace swiglu::server {
namespace {

// Counts completions by code.
struct Tally {
  std::atomic<int> ok{0}, cancelled{0}, late{0}, failed{0};

  Request::Done Count() {
    return [this](std::unique_ptr<Request> request, const Outcome& outcome) {
      ASSERT_NE(request, nullptr);
      switch (outcome.status.code()) {
        case absl::StatusCode::kOk:
          ++ok;
          break;
        case absl::StatusCode::kCancelled:
          ++cancelled;
          break;
        case absl::StatusCode::kDeadlineExceeded:
          ++late;
          break;
        default:
          ++failed;
      }
    };
  }
};

TEST(BatcherTest, StartsAtOnceWhenALaneIsFree) {
  FakeExecutor executor(2, 256);
  RecordingObserver observer;
  Tally tally;
  Batcher batcher({}, &executor, &observer);
  batcher.Submit(MakeRequest(kForward, 8, tally.Count()));
  batcher.Submit(MakeRequest(kForward, 8, tally.Count()));
  EXPECT_EQ(executor.num_held(), 2u);
  EXPECT_EQ(batcher.inflight_requests(), 2);
  executor.Complete(absl::OkStatus());
  executor.Complete(absl::OkStatus());
  EXPECT_EQ(tally.ok, 2);
  EXPECT_EQ(batcher.inflight_requests(), 0);
}

TEST(BatcherTest, WhatArrivesWhileTheLaneIsBusyFormsTheNextBatch) {
  FakeExecutor executor(1, 256);
  RecordingObserver observer;
  Tally tally;
  Batcher batcher({}, &executor, &observer);
  for (int i = 0; i < 5; ++i) batcher.Submit(MakeRequest(kForward, i + 1, tally.Count()));
  EXPECT_EQ(executor.sizes(), (std::vector<size_t>{1}));
  executor.Complete(absl::OkStatus());
  EXPECT_EQ(executor.sizes(), (std::vector<size_t>{1, 4}));
  executor.Complete(absl::OkStatus());
  EXPECT_EQ(tally.ok, 5);
  ASSERT_EQ(observer.batches.size(), 2u);
  EXPECT_EQ(observer.batches[1].num_requests, 4);
  EXPECT_EQ(observer.batches[1].num_elements, 2 + 3 + 4 + 5);
}

TEST(BatcherTest, ABatchIsAloneIfItsOnlyRequestIs) {
  FakeExecutor executor(1, 256);
  RecordingObserver observer;
  Tally tally;
  Batcher batcher({}, &executor, &observer);
  for (int i = 0; i < 3; ++i) {
    auto request = MakeRequest(kForward, 1, tally.Count());
    request->is_alone = i != 2;
    batcher.Submit(std::move(request));
  }
  executor.Complete(absl::OkStatus());  // the other two are the next batch
  executor.Complete(absl::OkStatus());
  batcher.Submit(MakeRequest(kForward, 1, tally.Count()));
  executor.Complete(absl::OkStatus());
  EXPECT_EQ(executor.alone(), (std::vector<bool>{true, false, false}));
}

TEST(BatcherTest, RespectsTheExecutorsSegmentLimit) {
  FakeExecutor executor(1, 2);
  RecordingObserver observer;
  Tally tally;
  Batcher batcher({}, &executor, &observer);
  for (int i = 0; i < 4; ++i) batcher.Submit(MakeRequest(kForward, 1, tally.Count()));
  for (int i = 0; i < 3; ++i) executor.Complete(absl::OkStatus());
  EXPECT_EQ(executor.sizes(), (std::vector<size_t>{1, 2, 1}));
}

TEST(BatcherTest, AnExecutorErrorReachesEveryRequestOfTheBatchAndNoOther) {
  FakeExecutor executor(1, 256);
  RecordingObserver observer;
  Tally tally;
  Batcher batcher({}, &executor, &observer);
  for (int i = 0; i < 3; ++i) batcher.Submit(MakeRequest(kForward, 1, tally.Count()));
  executor.Complete(absl::OkStatus());
  executor.Complete(absl::InternalError("device 0 failed"));
  EXPECT_EQ(tally.ok, 1);
  EXPECT_EQ(tally.failed, 2);
}

TEST(BatcherTest, ACancelledOrLateRequestNeverReachesTheExecutor) {
  FakeExecutor executor(1, 256);
  RecordingObserver observer;
  Tally tally;
  auto cancelled = std::make_shared<std::atomic<bool>>(false);
  Batcher batcher({}, &executor, &observer);
  batcher.Submit(MakeRequest(kForward, 1, tally.Count()));
  batcher.Submit(MakeRequest(kForward, 2, tally.Count(), cancelled));
  auto late = MakeRequest(kBackward, 3, tally.Count());
  late->deadline = Clock::now();
  batcher.Submit(std::move(late));
  *cancelled = true;
  executor.Complete(absl::OkStatus());
  EXPECT_EQ(executor.sizes(), (std::vector<size_t>{1}));
  EXPECT_EQ(tally.ok, 1);
  EXPECT_EQ(tally.cancelled, 1);
  EXPECT_EQ(tally.late, 1);
}

TEST(BatcherTest, LeavesTheQueueWhenABatchIsFormedButKeepsItsBytes) {
  Admission admission({.max_queued_requests = 1, .memory_budget_bytes = 200});
  FakeExecutor executor(1, 256);
  RecordingObserver observer;
  Tally tally;
  Batcher batcher({}, &executor, &observer);
  auto request = MakeRequest(kForward, 1, tally.Count());
  auto admitted = admission.Admit(60);
  request->ticket = std::move(absl::get<Ticket>(admitted));
  batcher.Submit(std::move(request));
  EXPECT_EQ(admission.queued_requests(), 0);
  EXPECT_EQ(admission.used_bytes(MemoryKind::kStaging), 60);
  executor.Complete(absl::OkStatus());
  EXPECT_EQ(admission.used_bytes(MemoryKind::kStaging), 0);
}

TEST(BatcherTest, ACompletionInsideRunDoesNotRecurse) {
  FakeExecutor executor(1, 1);
  executor.complete_inline = true;
  RecordingObserver observer;
  Tally tally;
  Batcher batcher({}, &executor, &observer);
  // Each completion submits the next: a recursion would overflow the stack.
  int left = 200'000;
  std::function<void()> next = [&] {
    batcher.Submit(MakeRequest(kForward, 1, [&](auto, const Outcome&) {
      if (--left > 0) next();
    }));
  };
  next();
  EXPECT_EQ(left, 0);
}

TEST(BatcherTest, WaitsForCompanyAndStartsWithoutAnotherSubmit) {
  FakeExecutor executor(1, 256);
  executor.complete_inline = true;
  RecordingObserver observer;
  absl::BlockingCounter done(2);
  constexpr std::chrono::milliseconds kDelay{20};
  Batcher batcher({.max_queue_delay = kDelay}, &executor, &observer);
  const auto count = [&done](auto, const Outcome&) { done.DecrementCount(); };
  const Clock::time_point start = Clock::now();
  batcher.Submit(MakeRequest(kForward, 1, count));
  batcher.Submit(MakeRequest(kForward, 2, count));
  done.Wait();
  EXPECT_GE(Clock::now() - start, kDelay);
  EXPECT_EQ(executor.sizes(), (std::vector<size_t>{2}));
}

TEST(BatcherTest, StartsAFullBatchWithoutWaiting) {
  FakeExecutor executor(1, 256);
  RecordingObserver observer;
  absl::BlockingCounter done(2);
  Batcher batcher({.max_segments = 1, .max_queue_delay = std::chrono::hours(1)}, &executor,
                  &observer);
  const auto count = [&done](auto, const Outcome&) { done.DecrementCount(); };
  batcher.Submit(MakeRequest(kForward, 1, count));
  batcher.Submit(MakeRequest(kForward, 2, count));
  EXPECT_EQ(executor.sizes(), (std::vector<size_t>{1}));
  executor.Complete(absl::OkStatus());
  executor.Complete(absl::OkStatus());
  done.Wait();
}

TEST(BatcherTest, EveryRequestIsFinishedExactlyOnceUnderLoad) {
  FakeExecutor executor(3, 7);
  RecordingObserver observer;
  Tally tally;
  constexpr int kThreads = 4, kEach = 5'000;
  std::atomic<int> submitting{kThreads};
  {
    Batcher batcher({}, &executor, &observer);
    std::vector<std::thread> threads;
    for (int t = 0; t < kThreads; ++t) {
      threads.emplace_back([&, t] {
        std::mt19937 random(t);
        for (int i = 0; i < kEach; ++i) {
          const Model& model = Models()[random() % kNumModels];
          auto cancelled = std::make_shared<std::atomic<bool>>(random() % 8 == 0);
          auto request = MakeRequest(model, random() % 100, tally.Count(), std::move(cancelled));
          if (random() % 8 == 0) request->deadline = request->accepted_at;
          batcher.Submit(std::move(request));
        }
        --submitting;
      });
    }
    std::thread completer([&] {
      while (submitting > 0 || batcher.inflight_requests() > 0) {
        if (executor.num_held() > 0) executor.Complete(absl::OkStatus());
      }
    });
    for (auto& thread : threads) thread.join();
    completer.join();
  }
  EXPECT_EQ(tally.ok + tally.cancelled + tally.late, kThreads * kEach);
  EXPECT_EQ(tally.failed, 0);
}

}  // namespace
}  // namespace swiglu::server
