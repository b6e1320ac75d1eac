// SPDX-License-Identifier: Apache-2.0
//
// The threads that poll the completion queues and pass each event to its tag; nothing else. A call
// stays on one queue. Only as many queues take calls as the work keeps busy (poller_count.h). A
// queue has one thread that polls it; the other threads sleep until one of those takes up long
// work.
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

  // How many queues take calls from here on, 1 to `max_pollers`.
  using Policy = std::function<int(const PollerLoad& load, int max_pollers)>;

  // How many queues are worth having for `num_threads` (>= 1) threads.
  static int NumQueues(int num_threads);

  // `num_threads` (>= 1) threads over `queues`, of which there is at least one, running from here
  // on.
  IoThreads(Queues queues, int num_threads, Policy policy = ChoosePollerCount);
  // REQUIRES: `Shutdown` was called.
  ~IoThreads() override;

  // The queue for one more call, which ends with `IoQueue::Unbind`. The queues that take calls have
  // them in turn.
  IoQueue& Bind();

  // IoQueue::Owner.
  bool IsOwnThread() const override;
  bool IsPolling(const IoQueue& queue) const override;
  bool TakesCalls(const IoQueue& queue) const override;
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
  // Leaves `queue` to another thread.
  void YieldTurn(IoQueue& queue);
  // Whether it has calls, or may be given some.
  bool IsInUse(const IoQueue& queue) const { return TakesCalls(queue) || queue.num_calls() > 0; }
  // Looks at the load every now and then, on whichever thread comes by first.
  void Adjust();
  // What all threads together have done until now, and how many queues take calls.
  PollerLoad Totals() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Policy policy_;
  std::vector<std::unique_ptr<IoQueue>> queues_;
  // So many of them, from the first on, take calls.
  std::atomic<size_t> num_taking_{1};
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
