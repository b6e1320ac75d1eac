// SPDX-License-Identifier: Apache-2.0
//
// The program swiglu-server over devices that fail when they are told to: everything is the
// program's own but `CreateExecutor`, and the lanes that it makes. For device_fault_test.py. Flags
// are the program's; --devices says which devices there are, by default 0. Results are not
// computed.
//
// A batch of kHeldElements or more stays on its lane. Lines on stdin command the rest:
//   sticky DEVICE     that device fails for good: the batches on it, and all that come to it
//   release DEVICE    ends the batches on that device well
//   unpinnable DEVICE that device fails for good as soon as a request needs memory
//   memory ELEMENTS   from here on the memory of no device does for a larger batch
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <iostream>
#include <limits>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "server/device/device_factory.h"
#include "server/device/lane.h"
#include "server/device/lane_executor.h"
#include "server/device/memory_source.h"
#include "server/log/log.h"

namespace swiglu::server {
namespace {

constexpr int64_t kHeldElements = 1000;

LaneResult Fault(DeviceError kind, absl::Status status, Outputs outputs) {
  LaneResult result;
  result.execution.status = std::move(status);
  result.fault = DeviceFault{kind, "simulated", outputs};
  return result;
}

LaneResult StickyFault(int ordinal) {
  return Fault(DeviceError::kSticky,
               absl::InternalError(absl::StrCat("device ", ordinal, " failed")),
               Outputs::kUnspecified);
}

// The state of all devices. Thread-safe.
class Devices {
 public:
  void Run(int ordinal, const Batch& batch, Lane::Finished finished) {
    int64_t num_elements = 0;
    for (const Segment& segment : batch.segments) num_elements += segment.num_elements;
    LaneResult result;
    {
      absl::MutexLock lock(&mutex_);
      if (failed_.count(ordinal) > 0) {
        result = StickyFault(ordinal);
      } else if (num_elements > most_elements_) {
        result = Fault(
            DeviceError::kOutOfMemory,
            absl::ResourceExhaustedError(absl::StrCat("device ", ordinal, " is out of memory")),
            Outputs::kUntouched);
      } else if (num_elements >= kHeldElements) {
        held_.push_back({ordinal, std::move(finished)});
        LOG(INFO, "device {} holds a batch", ordinal);
        return;
      }
    }
    finished(result);
  }

  void FailForGood(int ordinal) {
    {
      absl::MutexLock lock(&mutex_);
      failed_.insert(ordinal);
    }
    EndHeld(ordinal, StickyFault(ordinal));
  }

  void FailAtMemory(int ordinal) { unpinnable_ = ordinal; }
  // The device that is about to fail at memory; kNone.
  int unpinnable() const { return unpinnable_; }
  static constexpr int kNone = -1;

  void EndHeld(int ordinal, const LaneResult& result) {
    std::vector<Held> ended;
    {
      absl::MutexLock lock(&mutex_);
      const auto others = std::partition(held_.begin(), held_.end(), [ordinal](const Held& held) {
        return held.ordinal != ordinal;
      });
      std::move(others, held_.end(), std::back_inserter(ended));
      held_.erase(others, held_.end());
    }
    for (Held& held : ended) held.finished(result);
  }

  void SetMostElements(int64_t most_elements) {
    absl::MutexLock lock(&mutex_);
    most_elements_ = most_elements;
  }

 private:
  struct Held {
    int ordinal;
    Lane::Finished finished;
  };

  std::atomic<int> unpinnable_{kNone};
  absl::Mutex mutex_;
  std::set<int> failed_ ABSL_GUARDED_BY(mutex_);
  std::vector<Held> held_ ABSL_GUARDED_BY(mutex_);
  int64_t most_elements_ ABSL_GUARDED_BY(mutex_) = std::numeric_limits<int64_t>::max();
};

class FaultyLane final : public Lane {
 public:
  FaultyLane(Devices& devices, int ordinal) : devices_(devices), ordinal_(ordinal) {}
  void Run(const Batch& batch, LaunchPlan, Finished finished) override {
    devices_.Run(ordinal_, batch, std::move(finished));
  }

 private:
  Devices& devices_;
  const int ordinal_;
};

// The host's memory, as a device that may fail for good pins it.
class FaultyMemory final : public MemorySource {
 public:
  FaultyMemory(const Devices& devices, DeviceFaults& faults) : devices_(devices), faults_(faults) {}

  absl::StatusOr<std::byte*> Allocate(size_t size_bytes) override {
    const int ordinal = devices_.unpinnable();
    if (ordinal == Devices::kNone) return memory_->Allocate(size_bytes);
    faults_.Report(ordinal, DeviceError::kSticky, "simulated at memory");
    return StickyFault(ordinal).execution.status;
  }
  void Free(std::byte* data, size_t size_bytes) noexcept override {
    memory_->Free(data, size_bytes);
  }

 private:
  const Devices& devices_;
  DeviceFaults& faults_;
  const std::unique_ptr<MemorySource> memory_ = MakeHostMemory();
};

void ObeyCommands(Devices& devices) {
  std::string command;
  int64_t value = 0;
  while (std::cin >> command >> value) {
    if (command == "sticky") devices.FailForGood(static_cast<int>(value));
    if (command == "release") devices.EndHeld(static_cast<int>(value), {});
    if (command == "unpinnable") devices.FailAtMemory(static_cast<int>(value));
    if (command == "memory") devices.SetMostElements(value);
    LOG(INFO, "obeyed: {} {}", command, value);
  }
}

}  // namespace

absl::StatusOr<CreatedExecutor> CreateExecutor(const ExecutorOptions& options) {
  auto& devices = *new Devices();  // for as long as the process lives, as the thread below
  std::vector<int> ordinals = options.ordinals;
  if (ordinals.empty()) ordinals = {0};
  std::vector<LaneDevice> lane_devices;
  CreatedExecutor created;
  for (const int ordinal : ordinals) {
    LaneDevice device{ordinal, absl::StrCat("faulty:", ordinal), {}};
    for (int i = 0; i < std::max(options.lanes_per_device, 1); ++i) {
      device.lanes.push_back(std::make_unique<FaultyLane>(devices, ordinal));
    }
    lane_devices.push_back(std::move(device));
    created.cuda_devices.push_back({ordinal, "faulty"});
  }
  auto faults = std::make_unique<DeviceFaults>(options.observer);
  auto slab_pool = std::make_unique<CachingSlabPool>(
      std::make_unique<FaultyMemory>(devices, *faults), options.memory);
  auto executor = std::make_unique<LaneExecutor>(std::move(lane_devices), std::move(slab_pool),
                                                 std::move(faults));
  created.slab_pool = &executor->slab_pool();
  created.executor = std::move(executor);
  created.reason = "faulty: for tests";
  std::thread([&devices] { ObeyCommands(devices); }).detach();
  return created;
}

}  // namespace swiglu::server
