// SPDX-License-Identifier: Apache-2.0
//
// The batcher over a fake executor: work conservation, and that each accepted request is finished
// exactly once.
#include "server/batching/batcher.h"

#include <gtest/gtest.h>

#include <random>
#include <thread>
#include <utility>

#include "absl/synchronization/blocking_counter.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "server/core/model_registry.h"
#include "tests/batching/fakes.h"
#include "tests/batching/mlp_models.h"

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

TEST(BatcherTest, ResidentBatchesAndOthersDoNotWaitForEachOther) {
  FakeExecutor executor(1, 256);
  executor.resident_lanes = 1;
  RecordingObserver observer;
  Tally tally;
  Batcher batcher({}, &executor, &observer);
  const auto submit = [&](Placement placement) {
    auto request = MakeRequest(kForward, 1, tally.Count());
    request->placement = placement;
    batcher.Submit(std::move(request));
    return executor.num_held();
  };
  EXPECT_EQ(submit({}), 1u);
  EXPECT_EQ(submit({.device = 0, .is_resident = true}), 2u);
  EXPECT_EQ(submit({.device = 1, .is_resident = true}), 3u);
  // Each of these has to wait for one of its kind.
  EXPECT_EQ(submit({.device = 0, .is_resident = true}), 3u);
  EXPECT_EQ(submit({.device = 0, .is_resident = false}), 3u);
  EXPECT_EQ(submit({}), 3u);
  executor.Complete(absl::OkStatus());  // the first, in host memory
  EXPECT_EQ(executor.num_held(), 3u);
  executor.Complete(absl::OkStatus());  // on device 0
  EXPECT_EQ(executor.num_held(), 3u);
  executor.Complete(absl::OkStatus());  // on device 1, and nothing waits for that
  EXPECT_EQ(executor.num_held(), 2u);
  for (int i = 0; i < 3; ++i) executor.Complete(absl::OkStatus());
  EXPECT_EQ(tally.ok, 6);
}

// Three lanes, one of them for large batches: of 100 elements or more.
class LargeLanesTest : public testing::Test {
 protected:
  LargeLanesTest() : executor_(3, 1) {
    executor_.large_lanes = 1;
    executor_.large_bytes = InputBytes(*MakeRequest(kForward, 100));
    batcher_ = std::make_unique<Batcher>(BatchFormerOptions(), &executor_, &observer_);
  }

  // Returns how many batches the executor holds afterwards.
  size_t Submit(int64_t num_elements) {
    batcher_->Submit(MakeRequest(kForward, num_elements, tally_.Count()));
    return executor_.num_held();
  }
  size_t Complete() {
    executor_.Complete(absl::OkStatus());
    return executor_.num_held();
  }

  FakeExecutor executor_;
  RecordingObserver observer_;
  Tally tally_;
  std::unique_ptr<Batcher> batcher_;
};

TEST_F(LargeLanesTest, SmallBatchesLeaveOneLaneFree) {
  EXPECT_EQ(Submit(1), 1u);
  EXPECT_EQ(Submit(99), 2u);
  EXPECT_EQ(Submit(1), 2u);
  EXPECT_EQ(Complete(), 2u);
  EXPECT_EQ(Complete(), 1u);
  EXPECT_EQ(Complete(), 0u);
  EXPECT_EQ(tally_.ok, 3);
}

TEST_F(LargeLanesTest, LargeBatchesTakeAllLanes) {
  for (size_t i = 1; i <= 3; ++i) EXPECT_EQ(Submit(100), i);
  EXPECT_EQ(Submit(100), 3u);
  for (size_t held : {3u, 2u, 1u, 0u}) EXPECT_EQ(Complete(), held);
}

TEST_F(LargeLanesTest, SmallBatchesTakeTheirTurnBesideLargeOnes) {
  for (int i = 0; i < 3; ++i) Submit(100);
  EXPECT_EQ(Submit(1), 3u);
  EXPECT_EQ(Submit(100), 3u);
  // The small one came first, and takes the lane that the first large one leaves.
  EXPECT_EQ(Complete(), 3u);
  EXPECT_EQ(Submit(1), 3u);
  for (size_t held : {3u, 3u, 2u, 1u, 0u}) EXPECT_EQ(Complete(), held);
  EXPECT_EQ(tally_.ok, 6);
}

TEST(BatcherTest, BatchesOfMlpsAndOthersDoNotWaitForEachOther) {
  const ModelRegistry registry(MlpModels("m", 2, 1));
  const Model& one = *registry.Find("mlp_m_0_forward");
  const Model& another = *registry.Find("mlp_m_1_forward");
  FakeExecutor executor(1, 256);
  executor.mlp_lanes = 1;
  RecordingObserver observer;
  Tally tally;
  Batcher batcher({}, &executor, &observer);
  const auto submit = [&](const Model& model) {
    batcher.Submit(MakeRequest(model, 1, tally.Count()));
    return executor.num_held();
  };
  EXPECT_EQ(submit(one), 1u);
  EXPECT_EQ(submit(kForward), 2u);
  // Each of these has to wait for one of its kind.
  EXPECT_EQ(submit(one), 2u);
  EXPECT_EQ(submit(another), 2u);
  EXPECT_EQ(submit(one), 2u);
  EXPECT_EQ(submit(kBackward), 2u);
  executor.Complete(absl::OkStatus());  // of an MLP; what has come meanwhile goes together
  EXPECT_EQ(executor.sizes(), (std::vector<size_t>{1, 1, 2}));
  for (int i = 0; i < 4; ++i) executor.Complete(absl::OkStatus());
  EXPECT_EQ(executor.sizes(), (std::vector<size_t>{1, 1, 2, 1, 1}));
  EXPECT_EQ(tally.ok, 6);
}

TEST(BatcherTest, GivesABatchTheWeightsOfItsRequests) {
  class SomeWeights final : public Weights {
   public:
    SomeWeights() : Weights("") {}
  };
  FakeExecutor executor(1, 256);
  RecordingObserver observer;
  Tally tally;
  Batcher batcher({}, &executor, &observer);
  const auto weights = std::make_shared<const SomeWeights>();
  auto request = MakeRequest(kForward, 1, tally.Count());
  request->weights = weights;
  batcher.Submit(std::move(request));
  batcher.Submit(MakeRequest(kForward, 1, tally.Count()));
  executor.Complete(absl::OkStatus());
  executor.Complete(absl::OkStatus());
  EXPECT_EQ(executor.weights(), (std::vector<const Weights*>{weights.get(), nullptr}));
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

TEST(BatcherTest, RespectsTheExecutorsByteLimit) {
  FakeExecutor executor(1, 256);
  executor.most_bytes = 2 * InputBytes(*MakeRequest(kForward, 1));
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

// The longest that a test waits for anything. It is reached only by a test that fails.
constexpr absl::Duration kPatience = absl::Seconds(20);
constexpr std::chrono::hours kForever{1};

// How one request ended, for a test to wait for.
struct Ending {
  absl::Notification ended;
  absl::Status status;
  std::thread::id thread;

  Request::Done Keep() {
    return [this](auto, const Outcome& outcome) {
      status = outcome.status;
      thread = std::this_thread::get_id();
      ended.Notify();
    };
  }
  absl::StatusCode Await() {
    EXPECT_TRUE(ended.WaitForNotificationWithTimeout(kPatience));
    return status.code();
  }
};

Ticket TicketOf(Admission& admission) { return std::move(absl::get<Ticket>(admission.Admit(1))); }

// With every lane busy, and with a lane that waits for company.
class WaitingRequestTest : public testing::TestWithParam<bool> {
 protected:
  WaitingRequestTest() {
    if (GetParam()) batcher_.Submit(MakeRequest(kForward, 1));
  }
  ~WaitingRequestTest() override {
    if (GetParam()) executor_.Complete(absl::OkStatus());
  }

  Admission admission_{{.max_queued_requests = 8}};
  FakeExecutor executor_{1, 256};
  RecordingObserver observer_;
  std::array<Ending, 10> endings_;
  Batcher batcher_{
      {.max_queue_delay = GetParam() ? std::chrono::hours(0) : kForever}, &executor_, &observer_};
};

// More than once, so that the clock watcher is asleep for most of them.
TEST_P(WaitingRequestTest, EndsAtItsDeadline) {
  for (Ending& ending : endings_) {
    const Clock::time_point deadline = Clock::now() + std::chrono::milliseconds(10);
    auto request = MakeRequest(kBackward, 1, ending.Keep());
    request->deadline = deadline;
    request->ticket = TicketOf(admission_);
    batcher_.Submit(std::move(request));
    ASSERT_EQ(ending.Await(), absl::StatusCode::kDeadlineExceeded);
    EXPECT_GE(Clock::now(), deadline);
    EXPECT_EQ(admission_.queued_requests(), 0);
  }
}

// The watcher has to hear of a deadline that is before the one that it sleeps for.
TEST_P(WaitingRequestTest, EndsAtItsDeadlineAlsoIfAnothersIsLater) {
  Ending& sooner = endings_[0];
  Ending& later = endings_[1];
  auto cancelled = std::make_shared<std::atomic<bool>>(false);
  auto first = MakeRequest(kBackward, 1, later.Keep(), cancelled);
  first->deadline = Clock::now() + kForever;
  batcher_.Submit(std::move(first));
  auto request = MakeRequest(kBackward, 1, sooner.Keep());
  request->deadline = Clock::now() + std::chrono::milliseconds(50);
  batcher_.Submit(std::move(request));
  EXPECT_EQ(sooner.Await(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_FALSE(later.ended.HasBeenNotified());
  *cancelled = true;
  batcher_.Cancel(*cancelled);
  EXPECT_EQ(later.Await(), absl::StatusCode::kCancelled);
}

TEST_P(WaitingRequestTest, CancelledOnesEndAtOnceAndLeaveTheirPlaces) {
  auto cancelled = std::make_shared<std::atomic<bool>>(false);
  Tally tally;
  for (int i = 0; i < 8; ++i) {
    auto request = MakeRequest(
        kBackward, 1,
        [this, count = tally.Count()](auto ended, const Outcome& outcome) mutable {
          // Whoever hears of it may come again at once.
          EXPECT_EQ(admission_.queued_requests(), 0);
          count(std::move(ended), outcome);
        },
        cancelled);
    request->ticket = TicketOf(admission_);
    batcher_.Submit(std::move(request));
  }
  EXPECT_EQ(admission_.queued_requests(), 8);
  *cancelled = true;
  batcher_.Cancel(*cancelled);
  EXPECT_EQ(tally.cancelled, 8);
  EXPECT_EQ(admission_.queued_requests(), 0);
  // As does one of the same caller that comes only now.
  batcher_.Submit(MakeRequest(kBackward, 1, tally.Count(), cancelled));
  EXPECT_EQ(tally.cancelled, 9);
  EXPECT_EQ(executor_.sizes().size(), GetParam() ? 1u : 0u);
}

INSTANTIATE_TEST_SUITE_P(Lanes, WaitingRequestTest, testing::Bool(),
                         [](const auto& test) { return test.param ? "Busy" : "Free"; });

TEST(BatcherTest, ADroppedRequestEndsOnItsOwnThreads) {
  FakeExecutor executor(1, 256);
  RecordingObserver observer;
  OneThread tasks;
  Ending ending;
  {
    Batcher batcher({}, &executor, &observer);
    batcher.Submit(MakeRequest(kForward, 1));
    auto late = MakeRequest(kForward, 1, ending.Keep());
    late->deadline = late->accepted_at + std::chrono::milliseconds(1);
    late->tasks = &tasks;
    batcher.Submit(std::move(late));
    EXPECT_EQ(ending.Await(), absl::StatusCode::kDeadlineExceeded);
    EXPECT_EQ(ending.thread, tasks.id());
    executor.Complete(absl::OkStatus());
  }
}

TEST(BatcherTest, AnAnswerIsHandedBackOnItsOwnThreads) {
  FakeExecutor executor(1, 256);
  RecordingObserver observer;
  OneThread tasks;
  Ending ending;
  Batcher batcher({}, &executor, &observer);
  auto request = MakeRequest(kForward, 1, ending.Keep());
  request->tasks = &tasks;
  batcher.Submit(std::move(request));
  executor.Complete(absl::OkStatus());
  EXPECT_EQ(ending.Await(), absl::StatusCode::kOk);
  EXPECT_EQ(ending.thread, tasks.id());
}

TEST(BatcherTest, TheDestructorWaitsForAnswersOnTheirWay) {
  FakeExecutor executor(1, 256);
  RecordingObserver observer;
  OneThread tasks;
  Ending ending;
  absl::Notification may_answer, destroyed;
  auto batcher = std::make_unique<Batcher>(BatchFormerOptions(), &executor, &observer);
  tasks.Post(WorkLength::kShort, [&] { may_answer.WaitForNotification(); });
  auto request = MakeRequest(kForward, 1, ending.Keep());
  request->tasks = &tasks;
  batcher->Submit(std::move(request));
  executor.Complete(absl::OkStatus());  // whose answer is behind the other task
  std::thread destroyer([&] {
    batcher.reset();
    destroyed.Notify();
  });
  EXPECT_FALSE(destroyed.WaitForNotificationWithTimeout(absl::Milliseconds(100)));
  may_answer.Notify();
  destroyer.join();
  EXPECT_EQ(ending.Await(), absl::StatusCode::kOk);
}

// The clock watcher has to hear that there is a lane for what waits for company. More than once: it
// may be awake by chance.
TEST(BatcherTest, ALaneThatGetsFreeIsUsedOnceTheDelayIsOver) {
  FakeExecutor executor(1, 2);
  RecordingObserver observer;
  std::array<Ending, 5> waiting;
  std::array<Ending, 5> late;
  Batcher batcher({.max_queue_delay = std::chrono::milliseconds(20)}, &executor, &observer);
  for (int i = 0; i < 5; ++i) {
    executor.complete_inline = false;
    batcher.Submit(MakeRequest(kForward, 1));
    batcher.Submit(MakeRequest(kForward, 1));  // a full batch, which starts at once
    ASSERT_EQ(executor.num_held(), 1u);
    // Once the watcher has seen to this one there is nothing that it waits for.
    auto request = MakeRequest(kBackward, 1, late[i].Keep());
    request->deadline = Clock::now() + std::chrono::milliseconds(1);
    batcher.Submit(std::move(request));
    ASSERT_EQ(late[i].Await(), absl::StatusCode::kDeadlineExceeded);
    batcher.Submit(MakeRequest(kForward, 1, waiting[i].Keep()));
    executor.complete_inline = true;
    executor.Complete(absl::OkStatus());
    ASSERT_EQ(waiting[i].Await(), absl::StatusCode::kOk);
  }
  EXPECT_EQ(executor.sizes(), (std::vector<size_t>{2, 1, 2, 1, 2, 1, 2, 1, 2, 1}));
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

// Ends each batch inside `Run`, which returns when it is told to.
class LingeringExecutor final : public Executor {
 public:
  int num_lanes() const override { return 1; }
  int max_segments() const override { return 1; }
  int64_t max_batch_bytes() const override { return 1; }
  void Run(const Batch&, Done done) override {
    done(Execution());
    is_done.Notify();
    may_return.WaitForNotification();
  }
  bool healthy() const override { return true; }
  SlabPool& slab_pool() override { std::abort(); }
  std::string description() const override { return "lingering"; }

  absl::Notification is_done, may_return;
};

// Its last request has been handed back, but the thread that did so is still to look for more.
TEST(BatcherTest, TheDestructorWaitsForThreadsThatLookForWork) {
  LingeringExecutor executor;
  RecordingObserver observer;
  auto batcher = std::make_unique<Batcher>(BatchFormerOptions(), &executor, &observer);
  std::thread submitter([&] { batcher->Submit(MakeRequest(kForward, 1)); });
  executor.is_done.WaitForNotification();
  absl::Notification destroyed;
  Batcher* const doomed = batcher.release();
  std::thread destroyer([&] {
    delete doomed;
    destroyed.Notify();
  });
  EXPECT_FALSE(destroyed.WaitForNotificationWithTimeout(absl::Milliseconds(100)));
  executor.may_return.Notify();
  submitter.join();
  destroyer.join();
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
          const Model& model = Models()[random() % Models().size()];
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
