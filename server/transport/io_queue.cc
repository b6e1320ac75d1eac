// SPDX-License-Identifier: Apache-2.0
//
// Tasks get onto a completion queue by alarms that are due at once.
#include "server/transport/io_queue.h"

#include "grpc/support/time.h"
#include "server/transport/io_threads.h"

namespace swiglu::server {
namespace {

// A time that has already expired, so gRPC fires the alarm at once. An alarm for this very moment
// would wait for gRPC's next look at its timers.
gpr_timespec AtOnce() { return gpr_inf_past(GPR_CLOCK_MONOTONIC); }

struct LongTask final : Event {
  LongTask(TaskQueue* queue, TaskQueue::Task what) : tasks(queue), task(std::move(what)) {}
  void OnEvent(bool) override {
    {
      const LongWork work(*tasks, WorkLength::kLong);
      task();
      task = nullptr;
    }
    delete this;
  }
  TaskQueue* const tasks;
  TaskQueue::Task task;
  grpc::Alarm alarm;
};

}  // namespace

void IoQueue::Unbind() {
  if (num_calls_.fetch_sub(1) > 1) return;
  // Its thread waits for events that do not come any more.
  PostShort([] {});
}

void IoQueue::Post(WorkLength length, Task task) {
  if (length == WorkLength::kShort) return PostShort(std::move(task));
  auto* const posted = new LongTask(this, std::move(task));
  posted->alarm.Set(queue_.get(), AtOnce(), static_cast<Event*>(posted));
}

void IoQueue::PostShort(Task task) {
  {
    absl::MutexLock lock(&mutex_);
    short_tasks_.push_back(std::move(task));
    if (short_tasks_.size() > 1) return;
  }
  // Its last event has come by now: that took the tasks before this one.
  alarm_.Set(queue_.get(), AtOnce(), static_cast<Event*>(this));
}

bool IoQueue::IsCurrent() const { return owner_->IsOwnThread(); }
void IoQueue::BeginLongWork() { owner_->BeginLongWork(); }
void IoQueue::EndLongWork() { owner_->EndLongWork(); }

void IoQueue::OnEvent(bool) {
  std::vector<Task> tasks;
  {
    absl::MutexLock lock(&mutex_);
    tasks.swap(short_tasks_);
  }
  for (Task& task : tasks) task();
}

}  // namespace swiglu::server
