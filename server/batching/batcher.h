// SPDX-License-Identifier: Apache-2.0
//
// The batcher: wraps the batch former in threads and lanes. It is work-conserving: whenever a lane
// is free and a batch is ready, the batch starts at once. It starts on the thread that made this
// possible: the one that submitted the request, or the one that completed the batch before. The
// batcher has only one thread of its own, which watches the clock. This thread starts batches that
// have waited long enough for other requests, and drops requests at their deadlines.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "server/batching/batch_former.h"
#include "server/batching/request.h"
#include "server/core/executor.h"
#include "server/core/observer.h"

namespace swiglu::server {

// Queues accepted requests, forms batches and runs them. Thread-safe. The executor and the observer
// must outlive it; its destructor waits until every request is done.
class Batcher {
 public:
  // The sizes of `options` are lowered to what the executor takes.
  Batcher(BatchFormerOptions options, Executor* executor, Observer* observer);
  ~Batcher();
  Batcher(const Batcher&) = delete;
  Batcher& operator=(const Batcher&) = delete;

  // Takes over `request` and calls its `done` exactly once, perhaps before returning. Does not
  // block. REQUIRES: every field of `request` is set; its ticket holds a place in the queue.
  void Submit(std::unique_ptr<Request> request);

  // Ends every request with that `Request::cancelled` that is in no batch yet: with
  // DEADLINE_EXCEEDED if its caller waited until the deadline, else with CANCELLED. Does not block.
  // REQUIRES: `cancelled` is set, so that a request that is submitted later ends likewise.
  void Cancel(const std::atomic<bool>& cancelled);

  // Requests that are in a batch which is not done. Lock-free: a scrape of the metrics never blocks
  // the data path.
  int64_t inflight_requests() const { return inflight_requests_.load(std::memory_order_relaxed); }

  // Requests that were submitted and are not handed back yet.
  int64_t outstanding_requests() const {
    absl::MutexLock lock(&mutex_);
    return outstanding_;
  }

 private:
  // A batch on its way through the executor, with the requests that it serves.
  struct RunningBatch {
    Batch batch;
    FormedBatch::Requests requests;
    Clock::time_point taken_at;
  };

  // Queues `request`, if any. Then starts batches while lanes are free and batches are ready. If a
  // batch is done before `Run` returns, its completion calls Pump again on this thread. That inner
  // call leaves the work to the outer one.
  void Pump(std::unique_ptr<Request> request = nullptr);
  // The next batch to run, or nullptr when there is none now.
  std::unique_ptr<RunningBatch> TakeBatch() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Start(std::unique_ptr<RunningBatch> running);
  // Frees the lane, lets the next batch start, then hands the requests back. On the CPU this runs
  // inside `Pump`. There it hands the requests back first, and then the outer `Pump` starts the
  // next batch.
  void Finish(RunningBatch& running, const Execution& execution);
  // Requests that are handed back together.
  struct Returned {
    FormedBatch::Requests requests;
    Clock::time_point taken_at;
    absl::Status status;
    PhaseTimes times;  // of their batch
  };
  // Calls every `done`, a few together, on the threads that the requests name (`Request::tasks`).
  void HandBack(RunningBatch& running, const Execution& execution);
  void CallDoneOn(TaskQueue* tasks, WorkLength length, Returned returned);
  void CallDone(Returned returned);
  // Frees their places in the queue, and calls every `done` on the threads that the request names.
  void FinishDropped(std::vector<DroppedRequest> dropped);
  // Pumps whenever a batch has waited long enough or a deadline has come, until the destructor
  // begins.
  void WatchClock();
  // When the clock watcher next has something to do, if nothing else happens; `max()` if never.
  Clock::time_point NextDue() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Wakes the clock watcher if it would sleep past `NextDue`.
  void RouseWatcher() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const BatchFormerOptions options_;
  Executor* const executor_;
  Observer* const observer_;
  const int num_lanes_;

  mutable absl::Mutex mutex_;
  BatchFormer former_ ABSL_GUARDED_BY(mutex_);
  // Batches that the executor holds; at most num_lanes_.
  int busy_lanes_ ABSL_GUARDED_BY(mutex_) = 0;
  // Threads inside Pump.
  int num_pumping_ ABSL_GUARDED_BY(mutex_) = 0;
  // Accepted and not yet handed back; the destructor waits for zero.
  int64_t outstanding_ ABSL_GUARDED_BY(mutex_) = 0;

  std::atomic<int64_t> inflight_requests_{0};

  absl::CondVar watcher_roused_;
  // The time until which the clock watcher sleeps, unless it is roused.
  Clock::time_point watcher_due_ ABSL_GUARDED_BY(mutex_) = Clock::time_point::max();
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread clock_watcher_;
};

}  // namespace swiglu::server
