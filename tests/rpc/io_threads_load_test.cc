// SPDX-License-Identifier: Apache-2.0
//
// What the I/O threads count of their own work: what the policy is told, and who polls after long
// work.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "grpcpp/generic/async_generic_service.h"
#include "grpcpp/server.h"
#include "grpcpp/server_builder.h"
#include "gtest/gtest.h"
#include "server/transport/io_threads.h"
#include "tests/rpc/test_doubles.h"

namespace swiglu::server {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

// Two threads on one queue.
class IoThreadsLoadTest : public testing::Test {
 protected:
  IoThreadsLoadTest() {
    grpc::ServerBuilder builder;
    builder.RegisterAsyncGenericService(&service_);
    IoThreads::Queues queues;
    queues.push_back(builder.AddCompletionQueue());
    server_ = builder.BuildAndStart();
    const auto policy = [this](PollerLoad load, int) {
      absl::MutexLock lock(&mutex_);
      loads_.push_back(load);
      return num_pollers_.load();
    };
    threads_ = std::make_unique<IoThreads>(std::move(queues), 2, policy,
                                           [this] { return busy_waits_.load(); });
    queue_ = &threads_->Bind();
  }
  ~IoThreadsLoadTest() override {
    queue_->Unbind();
    server_->Shutdown();
    threads_->Shutdown();
  }

  // Runs `task` and waits for it.
  void Run(WorkLength length, const std::function<void()>& task) {
    // Both threads own it: one may still be in Notify when the other has heard of it.
    const auto done = std::make_shared<absl::Notification>();
    queue_->Post(length, [&task, done] {
      task();
      done->Notify();
    });
    EXPECT_TRUE(done->WaitForNotificationWithTimeout(kPatience));
  }
  static void Spin(milliseconds time) {
    const auto end = steady_clock::now() + time;
    while (steady_clock::now() < end) {
    }
  }
  // What the policy has been told after `count` more looks at the load, and forgets it.
  std::vector<PollerLoad> NextLoads(size_t count) {
    EXPECT_TRUE(Eventually([&] {
      Run(WorkLength::kShort, [] {});
      absl::MutexLock lock(&mutex_);
      return loads_.size() >= count;
    }));
    absl::MutexLock lock(&mutex_);
    return std::exchange(loads_, {});
  }

  std::atomic<int> num_pollers_{1};
  std::atomic<std::chrono::nanoseconds> busy_waits_{{}};
  absl::Mutex mutex_;
  std::vector<PollerLoad> loads_ ABSL_GUARDED_BY(mutex_);
  grpc::AsyncGenericService service_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<IoThreads> threads_;
  IoQueue* queue_ = nullptr;
};

TEST_F(IoThreadsLoadTest, TellsHowLongThreadsWereOnLongWork) {
  double longest = 0;
  for (const PollerLoad& load : NextLoads(3)) longest = std::max(longest, load.long_threads);
  EXPECT_EQ(longest, 0);
  Run(WorkLength::kLong, [] { Spin(milliseconds(50)); });
  for (const PollerLoad& load : NextLoads(2)) longest = std::max(longest, load.long_threads);
  EXPECT_GT(longest, 0.5);
  // It counts once.
  NextLoads(1);
  EXPECT_EQ(NextLoads(1)[0].long_threads, 0);
}

// What the threads took long ago is no load of now: two threads take two threads' time at most. A
// single figure may be odd on a busy machine, since the clocks are read one after the other.
TEST_F(IoThreadsLoadTest, TellsWhatThreadsTookSinceTheLastLook) {
  double most = 0;
  Run(WorkLength::kShort, [] { Spin(milliseconds(200)); });
  for (const PollerLoad& load : NextLoads(1)) most = std::max(most, load.busy_threads);
  EXPECT_GT(most, 0);
  double least = most;
  for (const PollerLoad& load : NextLoads(10)) least = std::min(least, load.busy_threads);
  EXPECT_LT(least, 2.5);
}

TEST_F(IoThreadsLoadTest, BusyWaitsAreNoLoad) {
  NextLoads(1);
  busy_waits_ = std::chrono::seconds(100);
  double least = 0;
  for (const PollerLoad& load : NextLoads(2)) least = std::min(least, load.busy_threads);
  EXPECT_LT(least, -1);
  // They count once.
  NextLoads(1);
  EXPECT_GE(NextLoads(1)[0].busy_threads, 0);
}

// Whoever goes to long work does not poll, and is one that may poll when it comes back: however
// often, as many threads poll as are to.
TEST_F(IoThreadsLoadTest, AsManyPollAfterLongWorkAsBefore) {
  for (int i = 0; i < 20; ++i) Run(WorkLength::kLong, [] {});
  num_pollers_ = 2;
  // Looks from before count no more; when a second one comes, the first has had its effect.
  NextLoads(1);
  NextLoads(2);
  // Short work, during which its thread polls nothing: only another one can run what comes next.
  absl::Notification helped, done;
  queue_->Post(WorkLength::kShort, [&] {
    EXPECT_TRUE(helped.WaitForNotificationWithTimeout(kPatience));
    done.Notify();
  });
  queue_->Post(WorkLength::kLong, [&] { helped.Notify(); });
  done.WaitForNotification();  // its own wait ends in time
}

}  // namespace
}  // namespace swiglu::server
