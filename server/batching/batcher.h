// SPDX-License-Identifier: Apache-2.0
//
// The batcher runs the batches that the batch former forms. A batch starts as soon as it is ready
// and a lane is free. The thread that submits a request, or that completes a batch, starts the
// batches that can start then. The batcher has one thread of its own, the clock watcher. It starts
// batches that have waited long enough for other requests, and drops requests at their deadlines.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "server/batching/batch_former.h"
#include "server/batching/request.h"
#include "server/core/executor.h"
#include "server/core/observer.h"

namespace swiglu::server {

// Queues accepted requests, forms batches and runs them. Thread-safe. The executor and the observer
// must outlive the batcher. Its destructor waits until every request is done.
class Batcher {
 public:
  // Lowers max_segments and max_batch_bytes in `options` to the limits of the executor.
  Batcher(BatchFormerOptions options, Executor* executor, Observer* observer);
  ~Batcher();
  Batcher(const Batcher&) = delete;
  Batcher& operator=(const Batcher&) = delete;

  // Takes over `request` and calls its `done` exactly once, possibly before `Submit` returns. Never
  // waits for a free lane. May call `Executor::Run`. REQUIRES: every field of `request` is set, and
  // its ticket holds a place in the queue. Only a chunk may have an empty ticket.
  void Submit(std::unique_ptr<Request> request);

  // Ends the requests that are in no batch yet and whose `Request::cancelled` points to
  // `cancelled`. Their status is DEADLINE_EXCEEDED if their caller waited until the deadline, else
  // CANCELLED. Like `Submit`, may call `Executor::Run`. REQUIRES: `cancelled` is true, so that
  // later requests with the same flag end in the same way.
  void Cancel(const std::atomic<bool>& cancelled);

  // The number of requests in batches that are not done. Lock-free, so that reading the metrics
  // never blocks the data path.
  int64_t inflight_requests() const { return inflight_requests_.load(std::memory_order_relaxed); }

  // The number of requests that were submitted and have not been handed back yet.
  int64_t outstanding_requests() const {
    absl::MutexLock lock(&mutex_);
    return outstanding_;
  }

 private:
  // A batch that the executor runs, with its requests.
  struct RunningBatch {
    Batch batch;
    FormedBatch::Requests requests;
    Clock::time_point taken_at;
    int64_t bytes = 0;  // of the inputs
  };

  // Queues `request`, if it is not null. Then starts batches while lanes are free and batches are
  // ready. If a batch is done before `Executor::Run` returns, its completion calls Pump again on
  // this thread. That inner call leaves the next batches to the outer call.
  void Pump(std::unique_ptr<Request> request = nullptr);
  // Whether one more batch of that model and placement with so many input bytes may be in flight.
  bool HasLane(const Model& model, const Placement& placement, int64_t bytes) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // `HasLane` for the batch former, which asks while the lock is held.
  auto LaneCheck() const {
    return [this](const Model& model, const Placement& placement, int64_t bytes)
               ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return HasLane(model, placement, bytes); };
  }
  // Adds one batch of that model, placement and size to those in flight, or takes one away.
  void CountBusy(const Model& model, const Placement& placement, int64_t bytes, int change)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Takes the next batch. Returns nullptr if no batch is ready that has a free lane.
  std::unique_ptr<RunningBatch> TakeBatch() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Start(std::unique_ptr<RunningBatch> running);
  // Frees the lane, lets the next batch start, then hands the requests back. On the
  // CPU, the batch is done before `Executor::Run` returns. Then the `Pump` that called `Run` starts
  // the next batch, after this function has handed the requests back.
  void Finish(RunningBatch& running, const Execution& execution);
  // Requests that are handed back together.
  struct Returned {
    FormedBatch::Requests requests;
    Clock::time_point taken_at;
    absl::Status status;
    PhaseTimes times;  // of their batch
  };
  // Calls the `done` of every request on the threads of its `Request::tasks`, a few requests per
  // task.
  void HandBack(RunningBatch& running, const Execution& execution);
  void CallDoneOn(TaskQueue* tasks, WorkLength length, Returned returned);
  void CallDone(Returned returned);
  // Frees the places of these requests in the queue. Then calls the `done` of each on the threads
  // of its `Request::tasks`.
  void FinishDropped(std::vector<DroppedRequest> dropped);
  // The loop of the clock watcher: calls Pump at the times that NextDue returns, until the
  // destructor stops it.
  void WatchClock();
  // When the clock watcher must next start a batch or drop a request. `max()`: no time is known.
  Clock::time_point NextDue() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Wakes the clock watcher if it would sleep past `NextDue`.
  void RouseWatcher() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const BatchFormerOptions options_;
  Executor* const executor_;
  Observer* const observer_;
  const int num_lanes_;
  const int num_large_lanes_;  // of num_lanes_
  const int64_t large_batch_bytes_;
  const int num_resident_lanes_;  // of each device
  const int num_mlp_lanes_;

  mutable absl::Mutex mutex_;
  BatchFormer former_ ABSL_GUARDED_BY(mutex_);
  // Batches that the executor holds, without resident ones and those of MLPs; at most num_lanes_.
  int busy_lanes_ ABSL_GUARDED_BY(mutex_) = 0;
  // Those of them that are not large; at most num_lanes_ - num_large_lanes_, but for a batch for
  // which more bytes were queued than it could take.
  int num_small_ ABSL_GUARDED_BY(mutex_) = 0;
  // Resident ones, by device; at most num_resident_lanes_ each.
  absl::flat_hash_map<int, int> busy_resident_lanes_ ABSL_GUARDED_BY(mutex_);
  // Batches of MLPs; at most num_mlp_lanes_.
  int busy_mlp_lanes_ ABSL_GUARDED_BY(mutex_) = 0;
  // The number of threads inside Pump.
  int num_pumping_ ABSL_GUARDED_BY(mutex_) = 0;
  // See `outstanding_requests`. The destructor waits until this is zero.
  int64_t outstanding_ ABSL_GUARDED_BY(mutex_) = 0;

  std::atomic<int64_t> inflight_requests_{0};

  absl::CondVar watcher_roused_;
  // The time until which the clock watcher sleeps, unless it is roused.
  Clock::time_point watcher_due_ ABSL_GUARDED_BY(mutex_) = Clock::time_point::max();
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread clock_watcher_;
};

}  // namespace swiglu::server
