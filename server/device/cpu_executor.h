// SPDX-License-Identifier: Apache-2.0
//
// The executor that runs batches on the host's own cores.
#pragma once

#include <cstddef>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "server/batching/executor.h"
#include "server/device/slab_pool.h"

namespace swiglu {
class CpuPool;
}  // namespace swiglu

namespace swiglu::server {

struct CpuExecutorOptions {
  // Batches computed at once, one thread each, and threads that share a large batch. >= 1. More
  // than there are cores only makes them wait for each other.
  int num_lanes = 1;
  // The slab pool's memory.
  CachingSlabPoolOptions memory;
};

// Runs each batch on the thread of a lane, start to end. Threads of a pool help with large batches
// as long as fewer threads than there are lanes compute those. Thread-safe; `done` may call `Run`.
// The destructor finishes what was handed in. It never fails: `healthy()` stays true.
class CpuExecutor final : public Executor {
 public:
  // INVALID_ARGUMENT for options out of range.
  static absl::StatusOr<std::unique_ptr<CpuExecutor>> Create(CpuExecutorOptions options);

  // REQUIRES: not called from a `done`.
  ~CpuExecutor() override;

  int num_lanes() const override { return num_lanes_; }
  int max_segments() const override;
  void Run(const Batch& batch, Done done) override;
  bool healthy() const override { return true; }
  CachingSlabPool& slab_pool() override { return slab_pool_; }
  std::string description() const override;

 private:
  struct Job {
    const Batch* batch;
    Done done;
  };

  explicit CpuExecutor(CpuExecutorOptions options);

  // A lane's thread: one job after another, until there are none and the destructor has begun.
  void ServeLane();
  std::optional<Job> NextJob();

  const int num_lanes_;
  CachingSlabPool slab_pool_;
  const std::unique_ptr<swiglu::CpuPool> compute_pool_;  // of as many threads as lanes

  absl::Mutex mutex_;
  absl::CondVar job_added_;
  std::deque<Job> jobs_ ABSL_GUARDED_BY(mutex_);  // not taken yet; at most num_lanes_
  // Handed in and not yet computed; at most num_lanes_.
  int num_inflight_ ABSL_GUARDED_BY(mutex_) = 0;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;

  std::vector<std::thread> lanes_;
};

}  // namespace swiglu::server
