// SPDX-License-Identifier: Apache-2.0
//
// One completion queue, which counts the calls that are bound to it and also takes tasks. It has no
// thread of its own: IoThreads polls it.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "grpcpp/alarm.h"
#include "grpcpp/completion_queue.h"
#include "server/core/task_queue.h"

namespace swiglu::server {

class IoThreads;

// Something that a completion queue reports.
class Event {
 public:
  virtual ~Event() = default;
  virtual void OnEvent(bool ok) = 0;
};

// Thread-safe.
class IoQueue final : public TaskQueue, private Event {
 public:
  // `owner` has the threads that poll this queue.
  IoQueue(IoThreads* owner, std::unique_ptr<grpc::ServerCompletionQueue> queue)
      : owner_(owner), queue_(std::move(queue)) {}

  grpc::ServerCompletionQueue* queue() { return queue_.get(); }

  // Counts one more call, which begins to wait for its headers here. Returns whether it is the
  // queue's only call.
  bool Bind() { return num_calls_.fetch_add(1) == 0; }
  // Counts one call fewer. REQUIRES: nothing uses that call any more.
  void Unbind();
  int64_t num_calls() const { return num_calls_.load(); }

  // Short tasks that wait at the same time run in one event, one after the other.
  void Post(WorkLength length, Task task) override;
  bool IsCurrent() const override;
  void BeginLongWork() override;
  void EndLongWork() override;

 private:
  friend class IoThreads;

  void PostShort(Task task);
  // Runs the short tasks.
  void OnEvent(bool ok) override;

  IoThreads* const owner_;
  const std::unique_ptr<grpc::ServerCompletionQueue> queue_;
  std::atomic<int64_t> num_calls_{0};

  absl::Mutex mutex_;
  // If there are short tasks, `alarm_` is set.
  std::vector<Task> short_tasks_ ABSL_GUARDED_BY(mutex_);
  grpc::Alarm alarm_;

  // For the owner: how many threads poll this queue, and how many of its threads are away.
  std::atomic<int> num_pollers_{0};
  std::atomic<int> num_away_{0};
  bool is_ended_ = false;  // no more events come; guarded by the owner's lock
};

}  // namespace swiglu::server
