// SPDX-License-Identifier: Apache-2.0
//
// The threads that poll the completion queues and pass each event to its tag; nothing else. A call
// stays on one queue. As many threads poll as the work keeps busy (poller_count.h), and as many
// queues are given calls: each queue with calls has a thread, and threads beyond that help with the
// queue that has most. The others sleep until one of those takes up long work.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "grpcpp/completion_queue.h"
#include "server/rpc/io_queue.h"
#include "server/rpc/poller_count.h"

namespace swiglu::server {

// Thread-safe.
class IoThreads final : public IoQueue::Owner {
 public:
  using Queues = std::vector<std::unique_ptr<grpc::ServerCompletionQueue>>;

  // How many threads poll from here on, 1 to `max_pollers`.
  using Policy = std::function<int(const PollerLoad& load, int max_pollers)>;

  // How many queues are worth having for `num_threads` (>= 1) threads.
  static int NumQueues(int num_threads);

  // `num_threads` (>= 1) threads over `queues`, of which there is at least one, running from here
  // on.
  IoThreads(Queues queues, int num_threads, Policy policy = ChoosePollerCount);
  // REQUIRES: `Shutdown` was called.
  ~IoThreads() override;

  // The queue for one more call, which ends with `IoQueue::Unbind`. As many queues as threads poll
  // have them in turn.
  IoQueue& Bind();

  // IoQueue::Owner.
  bool IsOwnThread() const override;
  void BeginLongWork() override;
  void EndLongWork() override;

  // Ends the threads, after every event that is still due. REQUIRES: nothing begins anything on the
  // queues any more.
  void Shutdown();

 private:
  using Clock = std::chrono::steady_clock;

  // A thread, from beginning to end.
  void Run();
  // Polls `queue` for as long as that is this thread's turn.
  void Poll(IoQueue& queue);
  // Waits for a queue that needs a thread. nullptr when all is over.
  IoQueue* AwaitTurn();
  IoQueue* FindTurn() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // A queue that needs a thread and has none.
  IoQueue* ClaimLonelyQueue() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Leaves `queue` to another thread.
  void YieldTurn(IoQueue& queue);
  // Whether the calling thread, which polls `queue`, is to go on.
  bool KeepsTurn(const IoQueue& queue) const;
  // Looks at the load every now and then, on whichever thread comes by first.
  void Adjust();
  // What all threads together have done until now, and how many are to poll.
  PollerLoad Totals() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Policy policy_;
  std::vector<std::unique_ptr<IoQueue>> queues_;
  // So many threads are to poll, and so many queues, from the first on, are given calls.
  std::atomic<int> target_pollers_{1};
  std::atomic<int> num_pollers_{0};   // threads that have a turn
  std::atomic<size_t> num_bound_{0};  // calls until now
  std::atomic<int64_t> long_work_ns_{0};
  std::atomic<Clock::rep> next_look_{0};  // since the clock's epoch

  absl::Mutex mutex_;
  absl::CondVar turn_free_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  Clock::time_point looked_at_ ABSL_GUARDED_BY(mutex_);
  PollerLoad totals_ ABSL_GUARDED_BY(mutex_);                  // of the last look
  std::vector<clockid_t> cpu_clocks_ ABSL_GUARDED_BY(mutex_);  // of the threads

  std::vector<std::thread> threads_;
};

}  // namespace swiglu::server
