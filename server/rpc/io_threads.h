// SPDX-License-Identifier: Apache-2.0
//
// The threads that poll the completion queue and pass each event to its tag; nothing else. They
// share one queue, and only as many of them poll as the work keeps busy (poller_count.h).
#pragma once

#include <pthread.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "grpcpp/completion_queue.h"
#include "server/rpc/call.h"

namespace swiglu::server {

// Thread-safe.
class IoThreads final : public TaskQueue {
 public:
  // At most `max_pollers` (>= 1) threads over `queue`, running from here on.
  IoThreads(std::unique_ptr<grpc::ServerCompletionQueue> queue, int max_pollers);
  // REQUIRES: `Shutdown` was called.
  ~IoThreads() override;

  grpc::ServerCompletionQueue* queue() { return queue_.get(); }
  void Post(Task task) override;

  // Ends the threads, after every event that is still due. REQUIRES: nothing begins anything on the
  // queue any more.
  void Shutdown();

 private:
  using Clock = std::chrono::steady_clock;

  // The thread of that number.
  void Run(int index);
  // Waits until thread `index` is to poll. False when all is over.
  bool AwaitTurn(int index);
  // Looks at the load every now and then, on whichever poller comes by first.
  void Adjust();
  // Processor time of all threads together.
  std::chrono::nanoseconds BusyTime() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::unique_ptr<grpc::ServerCompletionQueue> queue_;
  const int max_pollers_;

  // Threads of a lower index poll. Changed under mutex_.
  std::atomic<int> num_pollers_{1};
  std::atomic<Clock::rep> next_look_{0};  // since the clock's epoch

  absl::Mutex mutex_;
  absl::CondVar changed_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  // Of the last look.
  Clock::time_point looked_at_ ABSL_GUARDED_BY(mutex_);
  std::chrono::nanoseconds busy_time_ ABSL_GUARDED_BY(mutex_){0};
  std::vector<clockid_t> cpu_clocks_ ABSL_GUARDED_BY(mutex_);  // by thread

  std::vector<std::thread> threads_;
};

}  // namespace swiglu::server
