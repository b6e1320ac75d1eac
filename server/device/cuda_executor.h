// SPDX-License-Identifier: Apache-2.0
//
// The executor that runs batches on CUDA devices, however many there are. Kernels read and write
// the slabs directly: pinned host memory that every device sees at the same address.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "server/batching/executor.h"
#include "server/batching/observer.h"
#include "server/device/cuda_lane.h"
#include "server/device/device_choice.h"
#include "server/device/lane_choice.h"
#include "server/device/slab_pool.h"

namespace swiglu::server {

struct CudaExecutorOptions {
  // The devices to use; at least one.
  std::vector<DeviceInfo> devices;
  // Batches in flight on each device. >= 1.
  int lanes_per_device = 2;
  // The slab pool's memory, all of it pinned.
  CachingSlabPoolOptions memory;
  // Told of device errors; may be nullptr. Must outlive the executor.
  Observer* observer = nullptr;
};

// Spreads batches over the lanes of its devices. Thread-safe; `done` may call `Run`. Once a device
// has failed for good, `healthy()` is false and every batch, also one for another device, completes
// with INTERNAL: the process has to end.
class CudaExecutor final : public Executor {
 public:
  // Sets up the devices and runs every kernel once on each lane, so that the first request finds
  // all loaded. Takes some hundred milliseconds per device. INVALID_ARGUMENT for options out of
  // range, FAILED_PRECONDITION for a device that cannot use host memory directly, else what CUDA
  // said.
  static absl::StatusOr<std::unique_ptr<CudaExecutor>> Create(CudaExecutorOptions options);

  // REQUIRES: not called from a `done`.
  ~CudaExecutor() override;

  int num_lanes() const override { return num_lanes_; }
  int max_segments() const override;
  int64_t max_batch_bytes() const override;
  void Run(const Batch& batch, Done done) override;
  bool healthy() const override { return failed_ordinal_.load() == kNoDevice; }
  CachingSlabPool& slab_pool() override { return slab_pool_; }
  std::string description() const override;

 private:
  static constexpr int kNoDevice = -1;

  // Where a batch runs.
  struct Claim {
    int device;  // position in the options' devices
    CudaLane* lane;
    int64_t bytes;
  };

  explicit CudaExecutor(CudaExecutorOptions options);

  absl::Status SetUp();
  absl::Status SetUpDevice(int device);
  // Runs every kernel on `lane` over a small slab and looks at what it wrote.
  absl::Status WarmUp(CudaLane& lane, int ordinal);

  Claim ClaimLane(int64_t bytes);
  void ReleaseLane(const Claim& claim);
  Execution Complete(int ordinal, const CudaLane::Result& result);
  // Logs, counts, and remembers the first sticky error.
  void ReportError(int ordinal, cudaError_t error);

  const CudaExecutorOptions options_;
  const int num_lanes_;
  CachingSlabPool slab_pool_;
  std::atomic<int> failed_ordinal_{kNoDevice};

  absl::Mutex mutex_;
  std::vector<DeviceLoad> loads_ ABSL_GUARDED_BY(mutex_);  // by position in options_.devices
  std::vector<std::deque<CudaLane*>> free_lanes_
      ABSL_GUARDED_BY(mutex_);                // likewise; the longest free first
  int num_held_ ABSL_GUARDED_BY(mutex_) = 0;  // batches whose `done` has not returned

  std::vector<std::unique_ptr<CudaLane>> lanes_;  // of all devices; constant after Create
};

}  // namespace swiglu::server
