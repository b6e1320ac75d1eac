// SPDX-License-Identifier: Apache-2.0
//
// Lanes, locks and completions around the batch former. Every callback runs with no lock held.
#include "server/batching/batcher.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/time/time.h"
#include "server/log/log.h"

namespace swiglu::server {
namespace {

BatchFormerOptions Limit(BatchFormerOptions options, const Executor& executor) {
  options.max_segments = std::min(options.max_segments, executor.max_segments());
  options.max_batch_bytes = std::min(options.max_batch_bytes, executor.max_batch_bytes());
  return options;
}

// Requests that one task hands back: few, so that several threads share a batch's answers.
constexpr size_t kMaxDonePerTask = 8;

// The batcher that this thread is pumping, if any.
thread_local const Batcher* t_pumped = nullptr;

}  // namespace

Batcher::Batcher(BatchFormerOptions options, Executor* executor, Observer* observer)
    : options_(Limit(options, *executor)),
      executor_(executor),
      observer_(observer),
      num_lanes_(executor->num_lanes()),
      num_large_lanes_(executor->num_large_lanes()),
      large_batch_bytes_(executor->large_batch_bytes()),
      num_resident_lanes_(executor->num_resident_lanes()),
      num_mlp_lanes_(executor->num_mlp_lanes()),
      former_(options_) {
  CHECK(num_lanes_ > num_large_lanes_);
  clock_watcher_ = std::thread([this] { WatchClock(); });
}

Batcher::~Batcher() {
  {
    const auto idle = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return outstanding_ == 0 && inflight_requests() == 0 && num_pumping_ == 0;
    };
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(&idle));
    stopping_ = true;
    watcher_roused_.Signal();
  }
  clock_watcher_.join();
}

void Batcher::Submit(std::unique_ptr<Request> request) {
  CHECK(request->model != nullptr && request->cancelled != nullptr && request->done != nullptr);
  CHECK(!request->placement.is_resident || num_resident_lanes_ > 0);
  CHECK(IsElementwise(request->model->op) || num_mlp_lanes_ > 0);
  Pump(std::move(request));
}

void Batcher::Cancel(const std::atomic<bool>& cancelled) {
  {
    absl::MutexLock lock(&mutex_);
    former_.Cancel(cancelled, Clock::now());
  }
  Pump();
}

void Batcher::Pump(std::unique_ptr<Request> request) {
  const bool is_inner = t_pumped == this;
  if (is_inner && request == nullptr) return;
  const Batcher* const outer = std::exchange(t_pumped, this);
  bool is_counted = false;
  while (true) {
    std::vector<DroppedRequest> dropped;
    std::unique_ptr<RunningBatch> running;
    {
      absl::MutexLock lock(&mutex_);
      if (request != nullptr) {
        former_.Add(std::move(request));
        ++outstanding_;
      }
      if (is_inner) break;
      if (!is_counted) ++num_pumping_;
      is_counted = true;
      running = TakeBatch();
      dropped = former_.TakeDropped();
      if (running == nullptr && dropped.empty()) {
        --num_pumping_;
        RouseWatcher();
        break;
      }
    }
    FinishDropped(std::move(dropped));
    if (running != nullptr) Start(std::move(running));
  }
  t_pumped = outer;
}

bool Batcher::HasLane(const Model& model, const Placement& placement, int64_t bytes) const {
  if (!IsElementwise(model.op)) return busy_mlp_lanes_ < num_mlp_lanes_;
  if (!placement.is_resident) {
    const bool is_large = bytes >= large_batch_bytes_;
    return busy_lanes_ < num_lanes_ && (is_large || num_small_ < num_lanes_ - num_large_lanes_);
  }
  const auto busy = busy_resident_lanes_.find(placement.device);
  return busy == busy_resident_lanes_.end() || busy->second < num_resident_lanes_;
}

void Batcher::CountBusy(const Model& model, const Placement& placement, int64_t bytes, int change) {
  if (!IsElementwise(model.op)) {
    busy_mlp_lanes_ += change;
    return;
  }
  if (placement.is_resident) {
    busy_resident_lanes_[placement.device] += change;
    return;
  }
  busy_lanes_ += change;
  if (bytes < large_batch_bytes_) num_small_ += change;
}

std::unique_ptr<Batcher::RunningBatch> Batcher::TakeBatch() {
  if (former_.empty()) return nullptr;
  const Clock::time_point now = Clock::now();
  FormedBatch formed = former_.TakeIfReady(now, LaneCheck());
  if (formed.requests.empty()) return nullptr;

  auto running = std::make_unique<RunningBatch>();
  running->taken_at = now;
  running->requests = std::move(formed.requests);
  running->bytes = formed.bytes;
  const Request& first = *running->requests.front();
  CountBusy(*first.model, first.placement, running->bytes, 1);
  inflight_requests_.fetch_add(static_cast<int64_t>(running->requests.size()),
                               std::memory_order_relaxed);
  return running;
}

void Batcher::Start(std::unique_ptr<RunningBatch> running) {
  running->batch.model = running->requests.front()->model;
  running->batch.weights = running->requests.front()->weights.get();
  running->batch.placement = running->requests.front()->placement;
  running->batch.segments.reserve(running->requests.size());
  for (const auto& request : running->requests) {
    request->ticket.LeaveQueue();
    running->batch.segments.push_back(request->segment);
  }
  running->batch.is_alone = running->requests.size() == 1 && running->requests.front()->is_alone;
  const Batch& batch = running->batch;
  executor_->Run(batch, [this, running = std::move(running)](const Execution& execution) {
    Finish(*running, execution);
  });
}

void Batcher::Finish(RunningBatch& running, const Execution& execution) {
  const int64_t num_requests = static_cast<int64_t>(running.requests.size());
  {
    absl::MutexLock lock(&mutex_);
    CountBusy(*running.batch.model, running.batch.placement, running.bytes, -1);
    inflight_requests_.fetch_sub(num_requests, std::memory_order_relaxed);
  }
  // The lane first: the next batch runs while this one's answers are written.
  Pump();

  observer_->BatchFinished(
      {running.batch.model, num_requests, NumElements(running.batch), execution});
  HandBack(running, execution);
}

void Batcher::HandBack(RunningBatch& running, const Execution& execution) {
  size_t next = 0;
  while (next < running.requests.size()) {
    Returned returned{{}, running.taken_at, execution.status, execution.times};
    TaskQueue* const tasks = running.requests[next]->tasks;
    int64_t bytes = 0;
    while (next < running.requests.size() && running.requests[next]->tasks == tasks &&
           returned.requests.size() < kMaxDonePerTask && LengthOf(bytes) == WorkLength::kShort) {
      bytes += InputBytes(*running.requests[next]);
      returned.requests.push_back(std::move(running.requests[next++]));
    }
    CallDoneOn(tasks, LengthOf(bytes), std::move(returned));
  }
}

void Batcher::CallDoneOn(TaskQueue* tasks, WorkLength length, Returned returned) {
  if (tasks == nullptr || tasks->IsCurrent()) return CallDone(std::move(returned));
  tasks->Post(length,
              [this, returned = std::move(returned)]() mutable { CallDone(std::move(returned)); });
}

void Batcher::CallDone(Returned returned) {
  for (auto& request : returned.requests) {
    Outcome outcome{returned.status, returned.times};
    outcome.times.queue = returned.taken_at - request->accepted_at;
    Request::Done done = std::move(request->done);
    done(std::move(request), outcome);
  }
  absl::MutexLock lock(&mutex_);
  outstanding_ -= static_cast<int64_t>(returned.requests.size());
}

void Batcher::FinishDropped(std::vector<DroppedRequest> dropped) {
  const Clock::time_point now = Clock::now();
  // Before anybody hears of it, who may come again at once.
  for (DroppedRequest& drop : dropped) drop.request->ticket.LeaveQueue();
  for (DroppedRequest& drop : dropped) {
    TaskQueue* const tasks = drop.request->tasks;
    Returned returned{{}, now, std::move(drop.status), {}};
    returned.requests.push_back(std::move(drop.request));
    CallDoneOn(tasks, WorkLength::kShort, std::move(returned));
  }
}

Clock::time_point Batcher::NextDue() {
  Clock::time_point due = former_.FirstDeadline();
  if (options_.max_queue_delay > Clock::duration::zero()) {
    due = std::min(due, former_.ReadyAt(LaneCheck()).value_or(due));
  }
  return due;
}

void Batcher::RouseWatcher() {
  const Clock::time_point due = NextDue();
  if (due >= watcher_due_) return;
  watcher_due_ = due;
  watcher_roused_.Signal();
}

void Batcher::WatchClock() {
  while (true) {
    {
      absl::MutexLock lock(&mutex_);
      if (stopping_) return;
      watcher_due_ = NextDue();
      const Clock::time_point now = Clock::now();
      if (watcher_due_ > now) {
        watcher_roused_.WaitWithTimeout(&mutex_, absl::FromChrono(watcher_due_ - now));
        continue;
      }
      former_.DropLate(now);
    }
    Pump();
  }
}

}  // namespace swiglu::server
