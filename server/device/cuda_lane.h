// SPDX-License-Identifier: Apache-2.0
//
// A lane: one stream of one CUDA device, its event, and the thread that waits for what was launched
// on it. The CUDA executor owns several and decides which one takes a batch.
#pragma once

#include <cuda_runtime_api.h>

#include <chrono>
#include <memory>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "server/batching/executor.h"
#include "server/device/cuda_handles.h"

namespace swiglu::server {

// Runs one batch at a time. A thread of its own, rather than one per device, so that a short batch
// is reported as soon as it is ready, whatever runs on the other lanes and however long their
// completions take.
class CudaLane {
 public:
  // How a batch ended, and the time from its launch to the moment when the host saw that.
  struct Result {
    cudaError_t error = cudaSuccess;
    std::chrono::nanoseconds compute{0};
  };
  using Finished = absl::AnyInvocable<void(const Result&)>;

  static absl::StatusOr<std::unique_ptr<CudaLane>> Create(int ordinal);

  // Waits for the batch in flight, if any. REQUIRES: not called from `finished`.
  ~CudaLane();

  CudaLane(const CudaLane&) = delete;
  CudaLane& operator=(const CudaLane&) = delete;

  // Launches `batch` on the calling thread and returns without waiting. The kernel reads and writes
  // the segments where they lie: device memory, or pinned host memory. `finished` is called exactly
  // once, when the lane is free for the next `Run`: on the lane's thread, or before returning if
  // the launch fails. REQUIRES: the lane is free; at most kMaxSegments segments.
  void Run(const Batch& batch, Finished finished);

 private:
  using Clock = std::chrono::steady_clock;

  // What is in flight.
  struct Job {
    Finished finished;  // nullptr: nothing is
    Clock::time_point launched_at;
  };

  CudaLane(int ordinal, CudaStream stream, CudaEvent event);

  cudaError_t Launch(const Batch& batch);
  // The lane's thread.
  void ServeCompletions();
  // Takes the job in flight, waiting for one; one without `finished` when the destructor has begun
  // and none is left.
  Job NextJob();
  // Returns when the event has happened or the device has failed. Spins first, then sleeps.
  cudaError_t AwaitEvent();

  const int ordinal_;
  const CudaStream stream_;
  const CudaEvent event_;  // recorded behind every launch

  absl::Mutex mutex_;
  absl::CondVar changed_;
  Job job_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;

  std::thread thread_;
};

}  // namespace swiglu::server
