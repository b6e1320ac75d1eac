// SPDX-License-Identifier: Apache-2.0
//
// Stand-ins for the two sides of the batcher: an executor that completes batches when the test says
// so, an observer that writes down what it is told, and requests without memory.
#pragma once

#include <atomic>
#include <deque>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "server/batching/request.h"
#include "server/core/executor.h"
#include "server/core/model.h"
#include "server/core/observer.h"
#include "server/core/task_queue.h"

namespace swiglu::server {

inline const Model& kForward = *FindModel("swiglu_forward_fp16");
inline const Model& kBackward = *FindModel("swiglu_backward_fp16");

// Holds every batch until `Complete`, or completes it inside `Run` if `inline_` is set.
class FakeExecutor final : public Executor {
 public:
  FakeExecutor(int num_lanes, int max_segments)
      : num_lanes_(num_lanes), max_segments_(max_segments) {}

  bool complete_inline = false;
  int64_t most_bytes = int64_t{1} << 30;  // of a batch
  int resident_lanes = 0;                 // of each device
  int mlp_lanes = 0;
  int large_lanes = 0;      // of all lanes
  int64_t large_bytes = 0;  // of a large batch's inputs

  int num_lanes() const override { return num_lanes_; }
  int num_resident_lanes() const override { return resident_lanes; }
  int num_mlp_lanes() const override { return mlp_lanes; }
  int num_large_lanes() const override { return large_lanes; }
  int64_t large_batch_bytes() const override { return large_bytes; }
  int max_segments() const override { return max_segments_; }
  int64_t max_batch_bytes() const override { return most_bytes; }
  void Run(const Batch& batch, Done done) override {
    {
      absl::MutexLock lock(&mutex_);
      sizes_.push_back(batch.segments.size());
      ops_.push_back(batch.model->op);
      alone_.push_back(batch.is_alone);
      weights_.push_back(batch.weights);
    }
    if (complete_inline) return done(Execution());
    absl::MutexLock lock(&mutex_);
    held_.push_back(std::move(done));
  }
  bool healthy() const override { return true; }
  SlabPool& slab_pool() override { std::abort(); }
  std::string description() const override { return "fake"; }

  // Completes the oldest batch that is held.
  void Complete(absl::Status status) {
    Done done;
    {
      absl::MutexLock lock(&mutex_);
      done = std::move(held_.front());
      held_.erase(held_.begin());
    }
    Execution execution;
    execution.status = std::move(status);
    done(execution);
  }

  size_t num_held() const {
    absl::MutexLock lock(&mutex_);
    return held_.size();
  }
  // Segments of every batch so far, and their operations.
  std::vector<size_t> sizes() const {
    absl::MutexLock lock(&mutex_);
    return sizes_;
  }
  std::vector<Op> ops() const {
    absl::MutexLock lock(&mutex_);
    return ops_;
  }
  // Likewise their weights.
  std::vector<const Weights*> weights() const {
    absl::MutexLock lock(&mutex_);
    return weights_;
  }
  // Likewise whether their requests were said to be alone.
  std::vector<bool> alone() const {
    absl::MutexLock lock(&mutex_);
    return alone_;
  }

 private:
  const int num_lanes_;
  const int max_segments_;
  mutable absl::Mutex mutex_;
  std::vector<Done> held_;
  std::vector<size_t> sizes_;
  std::vector<Op> ops_;
  std::vector<bool> alone_;
  std::vector<const Weights*> weights_ ABSL_GUARDED_BY(mutex_);
};

class RecordingObserver final : public Observer {
 public:
  void RequestFinished(const RequestRecord& record) override { Keep(finished, record); }
  void RequestSent(const Model*, std::chrono::nanoseconds, std::chrono::nanoseconds) override {}
  void BatchFinished(const BatchRecord& record) override { Keep(batches, record); }
  void DeviceFailed(int, DeviceError) override {}

  std::vector<RequestRecord> finished;
  std::vector<BatchRecord> batches;

 private:
  template <typename T>
  void Keep(std::vector<T>& list, const T& value) {
    absl::MutexLock lock(&mutex_);
    list.push_back(value);
  }
  absl::Mutex mutex_;
};

// One thread that runs the tasks, one after the other.
class OneThread final : public TaskQueue {
 public:
  OneThread() : thread_([this] { Run(); }) {}
  // Waits for the tasks.
  ~OneThread() override {
    Post(WorkLength::kShort, nullptr);
    thread_.join();
  }

  void Post(WorkLength, Task task) override {
    absl::MutexLock lock(&mutex_);
    tasks_.push_back(std::move(task));
  }
  bool IsCurrent() const override { return std::this_thread::get_id() == id(); }
  void BeginLongWork() override {}
  void EndLongWork() override {}
  std::thread::id id() const { return thread_.get_id(); }

 private:
  void Run() {
    const auto has_task = [this]()
                              ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return !tasks_.empty(); };
    while (true) {
      Task task;
      {
        absl::MutexLock lock(&mutex_);
        mutex_.Await(absl::Condition(&has_task));
        task = std::move(tasks_.front());
        tasks_.pop_front();
      }
      if (task == nullptr) return;
      task();
    }
  }

  absl::Mutex mutex_;
  std::deque<Task> tasks_ ABSL_GUARDED_BY(mutex_);
  std::thread thread_;
};

// A request of `num_elements` that was accepted just now and reports to `done`.
inline std::unique_ptr<Request> MakeRequest(
    const Model& model, int64_t num_elements, Request::Done done = [](auto, const auto&) {},
    std::shared_ptr<std::atomic<bool>> cancelled = std::make_shared<std::atomic<bool>>(false)) {
  auto request = std::make_unique<Request>();
  request->model = &model;
  request->segment.num_elements = num_elements;
  request->accepted_at = Clock::now();
  request->cancelled = std::move(cancelled);
  request->done = std::move(done);
  return request;
}

}  // namespace swiglu::server
