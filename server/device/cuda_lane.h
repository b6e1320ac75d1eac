// SPDX-License-Identifier: Apache-2.0
//
// A lane of a CUDA device: one stream, its event, a device buffer, and the thread that waits for
// what was launched.
#pragma once

#include <cuda_runtime_api.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "server/device/cuda_staged_path.h"
#include "server/device/lane.h"
#include "server/gpu/cuda_handles.h"

namespace swiglu::server {

// Each lane has a thread of its own, rather than one per device. So a short batch is reported as
// soon as it is ready, whatever runs on the other lanes and however long their completions take.
// The thread also enqueues a batch's portions after the first. It enqueues a portion when the
// portion before is done. A lane allocates everything that it needs from CUDA in `Create`.
class CudaLane final : public Lane {
 public:
  static absl::StatusOr<std::unique_ptr<CudaLane>> Create(int ordinal);

  // REQUIRES: not called from `finished`.
  ~CudaLane() override;

  CudaLane(const CudaLane&) = delete;
  CudaLane& operator=(const CudaLane&) = delete;

  // Leaves the work to the lane's thread: launches take turns in the driver, and a calling thread
  // should not wait there. There are two exceptions. If the plan has a `caller_wait`, the calling
  // thread launches the batch, waits for that long, and calls `finished` if the batch is done by
  // then. If the calling thread is a lane's thread (it has just completed a batch), it launches the
  // batch, and this lane's thread waits for it. A plan that is not staged needs tensors that the
  // device sees where they lie: in device memory, or in pinned host memory.
  void Run(const Batch& batch, LaunchPlan plan, Finished finished) override;

 private:
  using Clock = std::chrono::steady_clock;

  // What is in flight.
  struct Job {
    const Batch* batch = nullptr;
    LaunchPlan plan;
    Finished finished;                   // nullptr: no job is in flight
    Clock::time_point launched_at = {};  // of the first launch
    size_t num_enqueued = 0;             // of the plan's portions
    Outputs outputs = Outputs::kUntouched;
    Execution execution = {};

    bool is_begun() const { return launched_at != Clock::time_point(); }
  };

  CudaLane(int ordinal, CudaStream stream, CudaEvent event, CudaStagedPath staged_path);

  // Enqueues the job's next portion, or all of it if it has no portions, and then the event. On
  // error nothing of the job is running any more.
  cudaError_t Enqueue(Job& job);
  cudaError_t EnqueueWork(Job& job);
  // Waits for what `Enqueue` enqueued and adds up its times.
  cudaError_t Await(Job& job);
  // Returns when the event has happened or the device has failed. Spins first, then sleeps.
  cudaError_t AwaitEvent();
  // Spins until the event has happened or the device has failed; returns cudaErrorNotReady after
  // `spin_time`.
  cudaError_t PollEvent(std::chrono::microseconds spin_time);
  // Whether the event happens within `time`; false at once if that is zero.
  bool IsDoneWithin(std::chrono::microseconds time);
  // Calls `finished`.
  void Finish(Job job, cudaError_t error);

  // The lane's thread.
  void ServeJobs();
  // Waits for a job and takes it. Returns one without `finished` once the destructor has begun and
  // no job is left.
  Job NextJob();

  const int ordinal_;
  const CudaStream stream_;
  const CudaEvent event_;  // recorded behind all that is enqueued
  // Used by the thread that has the job: the caller of `Run`, then the lane's thread.
  CudaStagedPath staged_path_;

  absl::Mutex mutex_;
  absl::CondVar changed_;
  Job job_ ABSL_GUARDED_BY(mutex_);
  std::atomic<bool> has_job_{false};  // read without the lock
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;

  std::thread thread_;
};

}  // namespace swiglu::server
