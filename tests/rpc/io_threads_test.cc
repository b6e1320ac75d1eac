// SPDX-License-Identifier: Apache-2.0
//
// The I/O threads without a call: which queue is given to the next one, and where tasks run.
#include "server/transport/io_threads.h"

#include <atomic>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "grpcpp/generic/async_generic_service.h"
#include "grpcpp/server.h"
#include "grpcpp/server_builder.h"
#include "gtest/gtest.h"
#include "tests/rpc/test_doubles.h"

namespace swiglu::server {
namespace {

using testing::Each;
using testing::UnorderedElementsAre;

class IoThreadsTest : public testing::Test {
 protected:
  void Start(int num_queues, int num_threads) {
    grpc::ServerBuilder builder;
    builder.RegisterAsyncGenericService(&service_);
    IoThreads::Queues queues;
    for (int i = 0; i < num_queues; ++i) queues.push_back(builder.AddCompletionQueue());
    server_ = builder.BuildAndStart();
    threads_ =
        std::make_unique<IoThreads>(std::move(queues), num_threads, [this](const PollerLoad&, int) {
          ++num_looks_;
          return num_pollers_.load();
        });
  }
  ~IoThreadsTest() override {
    server_->Shutdown();
    threads_->Shutdown();
  }

  // Runs something short on `queue` and waits for it.
  static void Touch(IoQueue& queue) {
    // Both threads own it: one may still be in Notify when the other has heard of it.
    const auto done = std::make_shared<absl::Notification>();
    queue.Post(WorkLength::kShort, [done] { done->Notify(); });
    EXPECT_TRUE(done->WaitForNotificationWithTimeout(kPatience));
  }
  // Lets `number` threads poll, and waits until the threads have looked.
  void LetPoll(int number, IoQueue& queue) {
    num_pollers_ = number;
    const int64_t looks = num_looks_;
    EXPECT_TRUE(Eventually([&] {
      Touch(queue);
      return num_looks_ > looks + 1;
    }));
  }
  // Which queues the next calls are bound to, in their order.
  std::vector<IoQueue*> NextQueues(int num_calls) {
    std::vector<IoQueue*> next;
    for (int i = 0; i < num_calls; ++i) {
      IoQueue& queue = threads_->Bind();
      next.push_back(&queue);
      queue.Unbind();
    }
    return next;
  }

  // The first other queue among the next calls'; nullptr if there is none.
  IoQueue* OtherThan(const IoQueue& queue) {
    for (IoQueue* const next : NextQueues(4)) {
      if (next != &queue) return next;
    }
    return nullptr;
  }

  // Keeps the calling thread busy until `helped`; false if that takes too long.
  static bool SpinUntil(const absl::Notification& helped) {
    const absl::Time end = absl::Now() + kPatience;
    while (!helped.HasBeenNotified() && absl::Now() < end) {
    }
    return helped.HasBeenNotified();
  }

  std::atomic<int> num_pollers_{1};
  std::atomic<int64_t> num_looks_{0};
  grpc::AsyncGenericService service_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<IoThreads> threads_;
};

TEST_F(IoThreadsTest, RunsTasksOnItsThreadsInTheirOrder) {
  Start(1, 2);
  IoQueue& queue = threads_->Bind();
  EXPECT_FALSE(queue.IsCurrent());
  std::vector<int> order;
  // Shared with the last task, which may still be inside Notify when the wait is over.
  const auto all = std::make_shared<absl::Notification>();
  for (int i = 0; i < 100; ++i) {
    queue.Post(WorkLength::kShort, [&queue, &order, all, i] {
      EXPECT_TRUE(queue.IsCurrent());
      order.push_back(i);
      if (i == 99) all->Notify();
    });
  }
  ASSERT_TRUE(all->WaitForNotificationWithTimeout(kPatience));
  ASSERT_EQ(order.size(), 100u);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(order[i], i);
  queue.Unbind();
}

TEST_F(IoThreadsTest, PollsOnWhileOneOfItsThreadsDoesLongWork) {
  Start(1, 2);
  IoQueue& queue = threads_->Bind();
  // At first the other thread may only just begin, and find the queue by itself.
  for (int i = 0; i < 3 && !HasFailure(); ++i) {
    const auto short_done = std::make_shared<absl::Notification>();
    const auto long_done = std::make_shared<absl::Notification>();
    queue.Post(WorkLength::kLong, [short_done, long_done] {
      EXPECT_TRUE(short_done->WaitForNotificationWithTimeout(kPatience));
      long_done->Notify();
    });
    queue.Post(WorkLength::kShort, [short_done] { short_done->Notify(); });
    long_done->WaitForNotification();  // its own wait ends in time
    // Whoever was on long work is of use again.
    Touch(queue);
  }
  queue.Unbind();
}

TEST_F(IoThreadsTest, BindsCallsInTurnToAsManyQueuesAsThreadsPoll) {
  Start(3, 4);
  IoQueue& first = threads_->Bind();
  EXPECT_THAT(NextQueues(6), Each(&first));
  LetPoll(2, first);
  IoQueue* const second = OtherThan(first);
  EXPECT_THAT(NextQueues(6), UnorderedElementsAre(&first, second, &first, second, &first, second));
  LetPoll(1, first);
  EXPECT_THAT(NextQueues(6), Each(&first));
  first.Unbind();
}

TEST_F(IoThreadsTest, ServesAQueueThatIsGivenNoCallsAnyMore) {
  Start(2, 3);
  IoQueue& first = threads_->Bind();
  LetPoll(2, first);
  IoQueue* const second = OtherThan(first);
  ASSERT_NE(second, nullptr);
  while (&threads_->Bind() != second) first.Unbind();
  LetPoll(1, first);
  Touch(*second);
  // Its thread leaves it with its last call, and one comes back with the next.
  second->Unbind();
  LetPoll(2, first);
  while (&threads_->Bind() != second) first.Unbind();
  Touch(*second);
  second->Unbind();
  first.Unbind();
}

TEST_F(IoThreadsTest, ThreadsBeyondTheQueuesWithCallsHelpWithTheBusiest) {
  Start(2, 3);
  IoQueue& first = threads_->Bind();
  LetPoll(2, first);
  // Short work, during which its thread polls nothing: only another one can run what comes next.
  absl::Notification helped, done;
  first.Post(WorkLength::kShort, [&] {
    EXPECT_TRUE(helped.WaitForNotificationWithTimeout(kPatience));
    done.Notify();
  });
  first.Post(WorkLength::kLong, [&] { helped.Notify(); });
  done.WaitForNotification();  // its own wait ends in time
  first.Unbind();
}

// A handler or gRPC's parser that takes long, and has said so to nobody.
TEST_F(IoThreadsTest, AnotherThreadPollsWhileTheOnlyOneIsKept) {
  Start(1, 1);
  IoQueue& queue = threads_->Bind();
  for (int i = 0; i < 3; ++i) {
    const auto helped = std::make_shared<absl::Notification>();
    const auto done = std::make_shared<absl::Notification>();
    queue.Post(WorkLength::kShort, [helped, done] {
      EXPECT_TRUE(SpinUntil(*helped));
      done->Notify();
    });
    queue.Post(WorkLength::kLong, [helped] { helped->Notify(); });
    done->WaitForNotification();  // its own wait ends in time
    // Whoever was kept is of use again.
    Touch(queue);
  }
  queue.Unbind();
}

TEST_F(IoThreadsTest, PollsOnWhileAsManyThreadsAreKeptAsThereAreReserves) {
  Start(1, 1);
  IoQueue& queue = threads_->Bind();
  absl::Notification helped;
  std::atomic<int> num_kept{IoThreads::kNumReserves};
  for (int i = 0; i < IoThreads::kNumReserves; ++i) {
    const auto begun = std::make_shared<absl::Notification>();
    queue.Post(WorkLength::kShort, [&, begun] {
      begun->Notify();
      EXPECT_TRUE(SpinUntil(helped));
      --num_kept;
    });
    EXPECT_TRUE(begun->WaitForNotificationWithTimeout(kPatience));
  }
  Touch(queue);
  helped.Notify();
  EXPECT_TRUE(Eventually([&] { return num_kept == 0; }));
  Touch(queue);
  queue.Unbind();
}

TEST(NumQueuesTest, LeavesThreadsForLongWorkAndStopsAtFour) {
  EXPECT_EQ(IoThreads::NumQueues(1), 1);
  EXPECT_EQ(IoThreads::NumQueues(2), 1);
  EXPECT_EQ(IoThreads::NumQueues(4), 3);
  EXPECT_EQ(IoThreads::NumQueues(8), 4);
  EXPECT_EQ(IoThreads::NumQueues(64), 4);
}

}  // namespace
}  // namespace swiglu::server
