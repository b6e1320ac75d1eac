// SPDX-License-Identifier: Apache-2.0
//
// The threads that poll the completion queue and pass each event to its tag; nothing else. They
// share one queue. Only as many of them poll as the work keeps busy (poller_count.h); the others
// sleep until one of those takes up long work.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "grpcpp/completion_queue.h"
#include "server/rpc/call.h"
#include "server/rpc/poller_count.h"

namespace swiglu::server {

// Thread-safe.
class IoThreads final : public TaskQueue {
 public:
  // `num_threads` (>= 1) threads over `queue`, running from here on. At most half of them poll
  // while there is no long work, which is what suits small messages.
  IoThreads(std::unique_ptr<grpc::ServerCompletionQueue> queue, int num_threads);
  // REQUIRES: `Shutdown` was called.
  ~IoThreads() override;

  grpc::ServerCompletionQueue* queue() { return queue_.get(); }
  void Post(Task task) override;
  bool IsCurrent() const override;
  void BeginLongWork() override;
  void EndLongWork() override;

  // Ends the threads, after every event that is still due. REQUIRES: nothing begins anything on the
  // queue any more.
  void Shutdown();

 private:
  using Clock = std::chrono::steady_clock;

  // A thread, from beginning to end.
  void Run();
  // Waits for a turn to poll. False when all is over.
  bool AwaitTurn();
  // Lets another thread poll.
  void YieldTurn();
  // Looks at the load every now and then, on whichever poller comes by first.
  void Adjust();
  // What all threads together have done until now, and how many poll.
  PollerLoad Totals() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::unique_ptr<grpc::ServerCompletionQueue> queue_;
  const int max_pollers_;

  std::atomic<int> target_pollers_{1};
  std::atomic<int> num_pollers_{0};  // threads that have a turn
  std::atomic<int64_t> long_work_ns_{0};
  std::atomic<Clock::rep> next_look_{0};  // since the clock's epoch

  absl::Mutex mutex_;
  absl::CondVar turn_yielded_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  Clock::time_point looked_at_ ABSL_GUARDED_BY(mutex_);
  PollerLoad totals_ ABSL_GUARDED_BY(mutex_);                  // of the last look
  std::vector<clockid_t> cpu_clocks_ ABSL_GUARDED_BY(mutex_);  // of the threads

  std::vector<std::thread> threads_;
};

}  // namespace swiglu::server
