// SPDX-License-Identifier: Apache-2.0
//
// The threads that poll the completion queues and pass each event to its tag. They do nothing else.
// A call stays on one queue. The number of pollers depends on the load (poller_count.h). With N
// pollers, the first N queues get the new calls. Each queue with calls has a poller. Further
// pollers help with the queue that has the most calls. All other threads sleep until a poller
// begins long work.
//
// Bytes from a peer can keep gRPC's parser, and so the polling thread, busy for seconds. A watchdog
// sees this (progress_watch.h) and counts the thread as away. As with long work, another thread
// polls that thread's queue meanwhile.
#pragma once

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
#include "grpc/support/time.h"
#include "grpcpp/completion_queue.h"
#include "server/transport/io_queue.h"
#include "server/transport/poller_count.h"
#include "server/transport/progress_watch.h"

namespace swiglu::server {

// Thread-safe.
class IoThreads {
 public:
  using Queues = std::vector<std::unique_ptr<grpc::ServerCompletionQueue>>;

  // Returns how many threads shall poll from now on, 1 to `max_pollers`.
  using Policy = std::function<int(const PollerLoad& load, int max_pollers)>;

  // Returns how long these threads have waited busily until now, all together. Any thread may call
  // it.
  using BusyWaits = std::function<std::chrono::nanoseconds()>;
  static std::chrono::nanoseconds NoBusyWaits() { return {}; }

  // Extra threads, beyond those that were asked for. They sleep unless other threads are away.
  static constexpr int kNumReserves = 4;

  // Returns how many queues are useful for `num_threads` (>= 1) threads.
  static int NumQueues(int num_threads);

  // Starts `num_threads` (>= 1) threads and the reserve threads. All of them poll `queues`. The
  // time of `busy_waits` does not count as load. REQUIRES: there is at least one queue.
  IoThreads(Queues queues, int num_threads, Policy policy = ChoosePollerCount,
            BusyWaits busy_waits = NoBusyWaits);
  // REQUIRES: `Shutdown` was called.
  ~IoThreads();

  // Binds one more call to a queue, until `IoQueue::Unbind`. Returns the queue. New calls go in
  // turn to the first N queues, where N is the number of threads that should poll.
  IoQueue& Bind();

  // Whether the calling thread is one of these threads.
  bool IsOwnThread() const;
  // Like the methods of TaskQueue.
  void BeginLongWork();
  void EndLongWork();

  // Ends the threads, after every event that is still due. REQUIRES: no new operation is started on
  // the queues any more.
  void Shutdown();

 private:
  using Clock = std::chrono::steady_clock;

  // One thread.
  struct alignas(64) Worker {
    // The thread itself sets it, with one exception: the watchdog turns kPolling into kAway.
    enum class State : uint8_t { kAsleep, kPolling, kLongWork, kAway };
    std::atomic<State> state{State::kAsleep};
    // Counts turns begun, events received, handlers ended, long work ended.
    std::atomic<uint32_t> num_steps{0};
    IoQueue* queue = nullptr;  // the one that the thread's turn is for; set under the lock
    int num_long_works = 0;    // how deep BeginLongWork is nested; used by the thread alone
    // When the thread last stopped polling, for whatever reason; set under the lock.
    Clock::time_point since;
    clockid_t cpu_clock = 0;
    ProgressWatch progress;  // used by the watchdog alone
  };

  // A thread, from beginning to end.
  void Run(Worker& worker);
  // Polls while this thread has a turn.
  void Poll(Worker& worker);
  // Waits until a queue needs `worker`. Returns false at the shutdown.
  bool AwaitTurn(Worker& worker);
  // Finds a queue that needs one more thread, and counts the thread there. nullptr if there is
  // none.
  IoQueue* FindTurn() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Finds a queue that needs a thread and has none, or too few, and counts the thread there.
  IoQueue* ClaimUnpolledQueue() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Records progress of the calling thread. If the thread was away, it is back now.
  void CountStep(Worker& worker);
  // The calling thread leaves its queue to another thread, and its state becomes `next`.
  void YieldTurn(Worker& worker, Worker::State next);
  // Counts the calling thread, which was away, as a poller again.
  void ComeBack(Worker& worker) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // How long a thread that polls `queue` may sleep.
  static gpr_timespec NextDeadline(const IoQueue& queue);
  // How many pollers `queue` needs. The caller checks whether `queue` needs pollers at all.
  static int PollersNeeded(const IoQueue& queue);
  // Adds or takes away a poller of `queue`.
  void CountPoller(IoQueue& queue, int change);
  // Until the shutdown, looks for threads that are kept from polling.
  void Watch();
  // Counts `worker` as away if it is kept from polling.
  void WatchWorker(Worker& worker, Clock::time_point now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Whether the calling thread, which polls `queue`, should poll it again.
  bool KeepsTurn(const IoQueue& queue) const;
  // Looks at the load, if a look is due and the lock is free.
  void Adjust();
  // The work of all threads together until now, and how many threads should poll.
  PollerLoad Totals() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // The IoThreads and the worker that the calling thread belongs to; nullptr for other threads.
  static thread_local const IoThreads* t_owner;
  static thread_local Worker* t_worker;

  const Policy policy_;
  const BusyWaits busy_waits_;
  std::vector<std::unique_ptr<IoQueue>> queues_;
  // How many threads should poll. The same number of queues, the first ones, get new calls.
  std::atomic<int> target_pollers_{1};
  std::atomic<int> num_pollers_{0};   // threads that have a turn and do poll
  std::atomic<size_t> num_bound_{0};  // calls to `Bind` until now
  std::atomic<int64_t> long_work_ns_{0};
  std::atomic<Clock::rep> next_look_{0};  // since the clock's epoch

  absl::Mutex mutex_;
  absl::CondVar turn_free_;
  absl::CondVar stop_;  // for the watchdog
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  Clock::time_point looked_at_ ABSL_GUARDED_BY(mutex_);
  PollerLoad totals_ ABSL_GUARDED_BY(mutex_);  // of the last look
  int num_awake_ ABSL_GUARDED_BY(mutex_) = 0;  // threads that have a turn and are not away

  const int num_threads_;  // without the reserves
  // One for each of `threads_`. All of them exist before the first thread starts.
  std::vector<std::unique_ptr<Worker>> workers_;
  std::vector<std::thread> threads_;
  std::thread watchdog_;
};

}  // namespace swiglu::server
