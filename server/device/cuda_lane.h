// SPDX-License-Identifier: Apache-2.0
//
// A lane of a CUDA device: one stream, its event, device buffers, and a thread that waits until
// launched work is done.
#pragma once

#include <cuda_runtime_api.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "server/device/cuda_mlp_path.h"
#include "server/device/cuda_staged_path.h"
#include "server/device/lane.h"
#include "server/gpu/cuda_handles.h"

namespace swiglu::server {

// Each lane has a thread of its own. So a short batch is reported as soon as it is done, even while
// other lanes run long batches or long callbacks. The thread also enqueues the second and every
// later portion of a batch, each when the portion before it is done. `Create` allocates everything
// that a lane needs from CUDA, but the memory for gradients of weights (CudaMlpPath).
class CudaLane final : public Lane {
 public:
  // A lane for element-wise batches.
  static absl::StatusOr<std::unique_ptr<CudaLane>> Create(int ordinal, LaneUse use = LaneUse::kAny);
  // A lane for batches of MLPs with any of `shapes`.
  static absl::StatusOr<std::unique_ptr<CudaLane>> CreateForMlps(
      int ordinal, const std::vector<MlpShape>& shapes);

  // REQUIRES: not called from `finished`.
  ~CudaLane() override;

  CudaLane(const CudaLane&) = delete;
  CudaLane& operator=(const CudaLane&) = delete;

  // Leaves the work to the lane's thread: the driver makes one launch at a time, and the calling
  // thread should not wait until the driver is free. There are two exceptions. If the plan says
  // that the caller launches, the calling thread launches the batch. It then waits for at most the
  // plan's `caller_wait`, and calls `finished` if the batch is done by then. If the calling thread
  // is the thread of some lane (it has just completed a batch), it launches the batch, too, unless
  // the batch wants gradients of weights, and this lane's thread waits for the result. REQUIRES:
  // the batch is one of those that the lane is for. Tensors are in device memory or in pinned host
  // memory, unless the plan has portions.
  void Run(const Batch& batch, LaunchPlan plan, Finished finished) override;

  std::chrono::nanoseconds caller_wait_time() const override {
    return std::chrono::nanoseconds(caller_wait_ns_.load(std::memory_order_relaxed));
  }

 private:
  using Clock = std::chrono::steady_clock;

  // The batch in flight.
  struct Job {
    const Batch* batch = nullptr;
    LaunchPlan plan;
    Finished finished;                   // nullptr: no job is in flight
    Clock::time_point launched_at = {};  // of the first launch
    size_t num_enqueued = 0;             // how many of the plan's portions are enqueued
    Outputs outputs = Outputs::kUntouched;
    Execution execution = {};

    bool is_begun() const { return launched_at != Clock::time_point(); }
  };

  // What kinds of batches need, beside a stream and an event.
  struct Paths {
    std::optional<CudaStagedPath> staged;
    std::optional<CudaMlpPath> mlp;
  };

  CudaLane(int ordinal, CudaStream stream, CudaEvent event, Paths paths);
  static absl::StatusOr<std::unique_ptr<CudaLane>> Make(int ordinal, Paths paths);

  // Enqueues the job's next portion, or the whole job if it has no portions, and then the event. On
  // error, no work of the job is running any more.
  cudaError_t Enqueue(Job& job);
  cudaError_t EnqueueWork(Job& job);
  // Waits for the work that `Enqueue` enqueued, and adds up its times.
  cudaError_t Await(Job& job);
  // Waits until the event is complete or the device has failed. Spins first, then sleeps.
  cudaError_t AwaitEvent();
  // Spins until the event is complete or the device has failed. Returns cudaErrorNotReady if
  // neither is the case after `spin_time`.
  cudaError_t PollEvent(std::chrono::microseconds spin_time);
  // Whether the wait for the event ends within `time`, during which the caller of `Run` waits. If
  // `time` is zero, returns false at once.
  bool IsDoneWithin(std::chrono::microseconds time);
  // Calls `finished`.
  void Finish(Job job, cudaError_t error);

  // The lane's thread.
  void ServeJobs();
  // Waits for a job and takes it. Once the destructor has begun and no job is left, returns a job
  // without `finished`.
  Job NextJob();

  const int ordinal_;
  const CudaStream stream_;
  const CudaEvent event_;  // recorded after all work that is enqueued
  // Used by the thread that has the job: the caller of `Run`, then the lane's thread.
  Paths paths_;

  std::atomic<int64_t> caller_wait_ns_{0};

  absl::Mutex mutex_;
  absl::CondVar changed_;
  Job job_ ABSL_GUARDED_BY(mutex_);
  std::atomic<bool> has_job_{false};  // read without the lock
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;

  std::thread thread_;
};

}  // namespace swiglu::server
