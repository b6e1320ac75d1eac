// SPDX-License-Identifier: Apache-2.0
//
// Runs batches of MLP models on the CPU. All tokens of a batch make one pass over the weights.
#pragma once

#include <deque>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "server/core/executor.h"
#include "swiglu/cpu_mlp.h"
#include "swiglu/cpu_pool.h"

namespace swiglu::server {

// Computes one batch after the other, on a thread of its own and on the threads of a pool.
// Thread-safe; `done` may call `Run`.
class CpuMlp {
 public:
  // At most `num_threads` (1 or more) threads compute a batch.
  explicit CpuMlp(int num_threads);

  // Waits until every `done` has returned. REQUIRES: not called from a `done`.
  ~CpuMlp();
  CpuMlp(const CpuMlp&) = delete;
  CpuMlp& operator=(const CpuMlp&) = delete;

  // Starts the batch and returns, or queues it behind others. Calls `done` on the thread of its own
  // when all outputs are written. Rows that are in several pieces are copied into memory of its own
  // and back. While a batch runs, it takes this memory and the kernel's workspace.
  // A segment that wants gradients of the weights is computed in pieces of as many rows as a batch
  // of several requests has (`Model::max_batch_rows`), so the memory does not grow with its rows.
  // Other batches wait until its last piece is done.
  // RESOURCE_EXHAUSTED: no memory for the two. INTERNAL: the kernel refused the batch.
  // REQUIRES: `batch.weights` are CpuWeights. `batch` outlives the call of `done`.
  void Run(const Batch& batch, Executor::Done done);

 private:
  struct Job {
    const Batch* batch = nullptr;
    Executor::Done done = nullptr;
  };

  // The thread's loop.
  void ServeJobs();
  absl::Status Compute(const Batch& batch);
  // A batch that wants gradients: adds up those of its pieces.
  absl::Status ComputeGradients(const Batch& batch);
  // A batch whose tensors fit into memory at once. If it wants gradients, `sums` says whether they
  // begin with it.
  absl::Status ComputeAtOnce(const Batch& batch, swiglu::MlpSums sums);

  swiglu::CpuPool pool_;
  absl::Mutex mutex_;
  std::deque<Job> jobs_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace swiglu::server
