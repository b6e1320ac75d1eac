// SPDX-License-Identifier: Apache-2.0
//
// The I/O threads without a call: which queue is given to the next one, and where tasks run.
#include "server/rpc/io_threads.h"

#include <atomic>
#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "absl/synchronization/notification.h"
#include "grpcpp/generic/async_generic_service.h"
#include "grpcpp/server.h"
#include "grpcpp/server_builder.h"
#include "gtest/gtest.h"
#include "tests/rpc/test_doubles.h"

namespace swiglu::server {
namespace {

class IoThreadsTest : public testing::Test {
 protected:
  void Start(int num_queues, int num_threads) {
    grpc::ServerBuilder builder;
    builder.RegisterAsyncGenericService(&service_);
    IoThreads::Queues queues;
    for (int i = 0; i < num_queues; ++i) queues.push_back(builder.AddCompletionQueue());
    server_ = builder.BuildAndStart();
    threads_ = std::make_unique<IoThreads>(std::move(queues), num_threads);
  }
  ~IoThreadsTest() override {
    server_->Shutdown();
    threads_->Shutdown();
  }

  // Whether a call could now be bound to a queue of that index.
  bool Takes(size_t index) {
    for (int i = 0; i < 8; ++i) {
      IoQueue& queue = threads_->Bind();
      queue.Unbind();
      if (queue.index() == index) return true;
    }
    return false;
  }
  // Runs something short on `queue` and waits for it.
  static void Touch(IoQueue& queue) {
    absl::Notification done;
    queue.Post(WorkLength::kShort, [&] { done.Notify(); });
    EXPECT_TRUE(done.WaitForNotificationWithTimeout(kPatience));
  }
  // Keeps the thread of `queue` busy until a call would be bound to queue 1.
  void BusyUntilQueueOneTakesCalls(IoQueue& queue) {
    std::atomic<bool> enough{false};
    absl::Notification ended;
    std::function<void()> spin = [&] {
      const auto until = std::chrono::steady_clock::now() + std::chrono::microseconds(200);
      while (std::chrono::steady_clock::now() < until) {
      }
      if (enough) return ended.Notify();
      queue.Post(WorkLength::kShort, spin);
    };
    queue.Post(WorkLength::kShort, spin);
    EXPECT_TRUE(Eventually([&] { return Takes(1); }));
    enough = true;
    EXPECT_TRUE(ended.WaitForNotificationWithTimeout(kPatience));
  }

  grpc::AsyncGenericService service_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<IoThreads> threads_;
};

TEST_F(IoThreadsTest, RunsTasksOnItsThreadsInTheirOrder) {
  Start(1, 2);
  IoQueue& queue = threads_->Bind();
  EXPECT_FALSE(queue.IsCurrent());
  std::vector<int> order;
  absl::Notification all;
  for (int i = 0; i < 100; ++i) {
    queue.Post(WorkLength::kShort, [&, i] {
      EXPECT_TRUE(queue.IsCurrent());
      order.push_back(i);
      if (i == 99) all.Notify();
    });
  }
  ASSERT_TRUE(all.WaitForNotificationWithTimeout(kPatience));
  ASSERT_EQ(order.size(), 100u);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(order[i], i);
  queue.Unbind();
}

TEST_F(IoThreadsTest, PollsOnWhileOneOfItsThreadsDoesLongWork) {
  Start(1, 2);
  IoQueue& queue = threads_->Bind();
  absl::Notification short_done;
  absl::Notification long_done;
  queue.Post(WorkLength::kLong, [&] {
    EXPECT_TRUE(short_done.WaitForNotificationWithTimeout(kPatience));
    long_done.Notify();
  });
  queue.Post(WorkLength::kShort, [&] { short_done.Notify(); });
  EXPECT_TRUE(long_done.WaitForNotificationWithTimeout(kPatience));
  // Whoever was on long work is of use again.
  Touch(queue);
  queue.Unbind();
}

TEST_F(IoThreadsTest, GivesCallsToOneQueueUntilItsThreadIsBusy) {
  Start(2, 3);
  EXPECT_TRUE(Takes(0));
  EXPECT_FALSE(Takes(1));
  IoQueue& first = threads_->Bind();
  BusyUntilQueueOneTakesCalls(first);
  first.Unbind();
}

TEST_F(IoThreadsTest, ServesAQueueThatTakesNoCallsAnyMore) {
  Start(2, 3);
  IoQueue& first = threads_->Bind();
  BusyUntilQueueOneTakesCalls(first);
  IoQueue* second = nullptr;
  ASSERT_TRUE(Eventually([&] {
    IoQueue& queue = threads_->Bind();
    if (queue.index() == 1) second = &queue;
    if (second == nullptr) queue.Unbind();
    return second != nullptr;
  }));
  // Hardly any load, but looks at it.
  ASSERT_TRUE(Eventually([&] {
    Touch(first);
    return !Takes(1);
  }));
  Touch(*second);
  second->Unbind();
  Touch(first);
  first.Unbind();
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
