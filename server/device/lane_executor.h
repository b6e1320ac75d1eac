// SPDX-License-Identifier: Apache-2.0
//
// The executor that uses the lanes of any number of devices. It chooses the lane and the path of
// each batch, and keeps track of batches in flight and of device faults. Does not use CUDA.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "server/core/executor.h"
#include "server/device/lane.h"
#include "server/device/lane_choice.h"
#include "server/gpu/device_faults.h"
#include "server/memory/slab_pool.h"

namespace swiglu::server {

// A device that is ready for batches. Its lanes are free.
struct LaneDevice {
  int ordinal = 0;
  std::string description;                   // "cuda:0 NVIDIA H100 80GB HBM3"
  std::vector<std::unique_ptr<Lane>> lanes;  // at least one
  // Lanes for resident batches, and those for MLPs. Every device has the same number of them.
  std::vector<std::unique_ptr<Lane>> resident_lanes = {};
  std::vector<std::unique_ptr<Lane>> mlp_lanes = {};
  int num_large_lanes = 0;  // how many of `lanes` take only large batches; fewer than all
};

// Spreads batches over its devices. A batch with tensors in a device's memory runs on that device,
// and waits while the device has no free lane for it. A batch of an MLP does the same on a device
// that has its weights, wherever its tensors are. For any other batch, `ChooseDevice` chooses
// the device. Resident batches and those of MLPs have lanes of their own, so no kind of batch waits
// for another. On its device, a batch gets the lane of its kind that has been free the longest. A
// batch that runs out of device memory is tried again in halves, unless it is of an MLP.
// Thread-safe; `done` may call `Run`. A device can fail for good during a batch, or during other
// work that reports to `faults`. From then on `healthy()` is false, and every later batch completes
// with UNAVAILABLE and runs on no device: the process has to end.
class LaneExecutor final : public Executor {
 public:
  // REQUIRES: at least one device. The slab pool's memory source may report to `faults`.
  LaneExecutor(std::vector<LaneDevice> devices, std::unique_ptr<CachingSlabPool> slab_pool,
               std::unique_ptr<DeviceFaults> faults);

  // Waits until every `done` has returned. REQUIRES: not called from a `done`.
  ~LaneExecutor() override;

  int num_lanes() const override { return num_lanes_; }
  int num_large_lanes() const override { return num_large_lanes_; }
  int64_t large_batch_bytes() const override;
  int num_resident_lanes() const override {
    return static_cast<int>(devices_.front().resident_lanes.size());
  }
  int num_mlp_lanes() const override {
    return static_cast<int>(devices_.size() * devices_.front().mlp_lanes.size());
  }
  int max_segments() const override;
  int64_t max_batch_bytes() const override;
  void Run(const Batch& batch, Done done) override;
  std::chrono::nanoseconds caller_wait_time() const override;
  bool healthy() const override { return !faults_->failed_device().has_value(); }
  CachingSlabPool& slab_pool() override { return *slab_pool_; }
  // For other work on the devices to report to.
  DeviceFaults& faults() { return *faults_; }
  std::string description() const override;

 private:
  // Where a batch runs.
  struct Claim {
    int device = 0;  // position in devices_
    Lane* lane = nullptr;
    LaneUse use = LaneUse::kAny;
    int64_t bytes = 0;          // that the batch reads and writes
    LaunchSituation situation;  // what was in flight on the device already
  };
  // A batch whose device has no free lane for it.
  struct WaitingBatch {
    const Batch* batch = nullptr;
    Done done = nullptr;
  };
  // The lanes of one kind that one device has.
  struct LaneQueue {
    std::deque<Lane*> free;  // the longest free first
    std::deque<WaitingBatch> waiting;
  };

  // The position in devices_ of the device that runs the batch.
  int ChooseDeviceOf(const Batch& batch) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The device that runs the batch of an MLP: one that has its weights.
  int ChooseMlpDevice(const Batch& batch) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The position in devices_ of the device with that ordinal.
  int PositionOf(int ordinal) const;
  LaneQueue& LanesFor(int device, LaneUse use) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return lanes_[static_cast<size_t>(device)][static_cast<size_t>(use)];
  }
  // Of the device's lanes for `batch`, claims the one that has been free the longest. REQUIRES: one
  // is free.
  Claim ClaimLane(int device, const Batch& batch) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Starts the batch on the claimed lane.
  void Start(const Claim& claim, const Batch& batch, Done done);
  // Gives the lane back, and starts the next batch that waits for it, if there is one.
  void ReleaseLane(const Claim& claim);
  // Frees the lane and calls `done`.
  void Finish(const Claim& claim, const LaneResult& result, Done done);
  void ReportFault(const Claim& claim, const DeviceFault& fault);

  const std::unique_ptr<DeviceFaults> faults_;  // outlives the pool, whose source may report to it
  const std::unique_ptr<CachingSlabPool> slab_pool_;
  int num_lanes_ = 0;        // of all devices; constant after construction
  int num_large_lanes_ = 0;  // likewise

  absl::Mutex mutex_;
  std::vector<DeviceLoad> loads_ ABSL_GUARDED_BY(mutex_);  // by position in devices_
  // Of the batches of MLPs alone, those that wait for a lane among them; likewise.
  std::vector<DeviceLoad> mlp_loads_ ABSL_GUARDED_BY(mutex_);
  // By position in devices_ and by LaneUse.
  std::deque<std::array<LaneQueue, kNumLaneUses>> lanes_ ABSL_GUARDED_BY(mutex_);
  int num_held_ ABSL_GUARDED_BY(mutex_) = 0;  // batches whose `done` has not returned

  // Declared after everything that the lanes' threads use, so that these threads end first.
  const std::vector<LaneDevice> devices_;
};

}  // namespace swiglu::server
