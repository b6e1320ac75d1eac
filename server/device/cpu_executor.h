// SPDX-License-Identifier: Apache-2.0
//
// The executor that runs batches on the host's cores, on the threads that call `Run`.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "server/core/executor.h"
#include "server/device/cpu_mlp.h"
#include "server/memory/slab_pool.h"

namespace swiglu::server {

struct CpuExecutorOptions {
  // The most batches that are computed at once. >= 1. If there are more batches than cores, they
  // wait for each other.
  int num_lanes = 1;
  // The slab pool's memory.
  CachingSlabPoolOptions memory;
  // The most threads that compute a batch of an MLP. 0: no such batches come.
  int mlp_threads = 0;
};

// Computes each element-wise batch inside `Run`. The thread that received a request has the
// request's bytes in its cache, and a hand-over to another thread takes longer than a small batch.
// Reads the inputs from the message block by block, so that they pass through memory only once. A
// batch of an MLP takes long and needs all cores, so there is one at a time, on a thread of its
// own. Thread-safe. Never fails: `healthy()` stays true.
class CpuExecutor final : public Executor {
 public:
  // INVALID_ARGUMENT for options out of range.
  static absl::StatusOr<std::unique_ptr<CpuExecutor>> Create(CpuExecutorOptions options);

  int num_lanes() const override { return num_lanes_; }
  int num_mlp_lanes() const override { return mlp_.has_value() ? 1 : 0; }
  int max_segments() const override;
  int64_t max_batch_bytes() const override;
  bool TakesReaders() const override { return true; }
  void Run(const Batch& batch, Done done) override;
  bool healthy() const override { return true; }
  CachingSlabPool& slab_pool() override { return slab_pool_; }
  std::string description() const override;

 private:
  explicit CpuExecutor(CpuExecutorOptions options);

  const int num_lanes_;
  CachingSlabPool slab_pool_;
  std::optional<CpuMlp> mlp_;  // ends before the memory that its batches use
};

}  // namespace swiglu::server
