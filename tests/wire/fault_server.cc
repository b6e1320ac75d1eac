// SPDX-License-Identifier: Apache-2.0
//
// The program swiglu-server over devices that fail when they are told to: everything is the
// program's own but its executor, and the lanes that it has. For device_fault_test.py. Flags
// are the program's; --devices says which devices there are, by default 0. What runs is computed on
// the CPU, each batch on a thread of its own, as on so many devices. Device 9 never becomes ready:
// the start of a server on it hangs.
//
// A batch of 1000 elements or more stays on its lane. Lines on stdin command the rest:
//   hold ELEMENTS     from here on a batch of so many elements stays on its lane
//   sticky DEVICE     that device fails for good: the batches on it, and all that come to it
//   release DEVICE    ends the batches on that device well
//   unpinnable DEVICE that device fails for good as soon as a request needs memory
//   load 0            loads of weights, which wait until now, go on
//   unloadable DEVICE that device fails for good in loads of weights: in those that wait, and in
//   later ones memory ELEMENTS   from here on the memory of no device does for a larger batch lack
//   0            an exception leaves a thread: there is no memory throw 0           an exception
//   leaves a thread: a mistake in the program
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <iostream>
#include <limits>
#include <memory>
#include <new>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "server/device/cpu_executor.h"
#include "server/device/cpu_weights.h"
#include "server/device/device_factory.h"
#include "server/device/lane.h"
#include "server/device/lane_executor.h"
#include "server/device/reporting_loader.h"
#include "server/log/log.h"
#include "server/memory/memory_source.h"
#include "server/program.h"

namespace swiglu::server {
namespace {

// The device that never becomes ready.
constexpr int kHangingDevice = 9;

// More than any test has at once.
constexpr int kMostBatches = 1024;

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
      } else if (num_elements >= least_held_elements_) {
        held_.push_back({ordinal, &batch, std::move(finished)});
        LOG(INFO, "device {} holds a batch", ordinal);
        return;
      }
    }
    finished(result.fault ? result : Compute(batch));
  }

  void FailForGood(int ordinal) {
    {
      absl::MutexLock lock(&mutex_);
      failed_.insert(ordinal);
    }
    for (Held& held : TakeHeld(ordinal)) held.finished(StickyFault(ordinal));
  }

  void FailAtMemory(int ordinal) { unpinnable_ = ordinal; }
  // Loads of weights go on: on `ordinal` they fail for good; kNone: they succeed.
  void LetLoad(int ordinal) {
    absl::MutexLock lock(&mutex_);
    unloadable_ = ordinal;
  }
  // Waits for `LetLoad`. Returns what it was given last.
  int AwaitLetLoad() {
    const auto may_go = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return unloadable_.has_value();
    };
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(&may_go));
    return *unloadable_;
  }

  // The device that is about to fail at memory; kNone.
  int unpinnable() const { return unpinnable_; }
  static constexpr int kNone = -1;

  void Release(int ordinal) {
    for (Held& held : TakeHeld(ordinal)) held.finished(Compute(*held.batch));
  }

  void SetMostElements(int64_t most_elements) {
    absl::MutexLock lock(&mutex_);
    most_elements_ = most_elements;
  }

  void SetLeastHeldElements(int64_t least_held_elements) {
    absl::MutexLock lock(&mutex_);
    least_held_elements_ = least_held_elements;
  }

 private:
  struct Held {
    int ordinal;
    const Batch* batch;
    Lane::Finished finished;
  };

  LaneResult Compute(const Batch& batch) {
    LaneResult result;
    cpu_->Run(batch, [&result](const Execution& execution) { result.execution = execution; });
    return result;
  }

  std::vector<Held> TakeHeld(int ordinal) {
    std::vector<Held> taken;
    absl::MutexLock lock(&mutex_);
    const auto others = std::partition(held_.begin(), held_.end(), [ordinal](const Held& held) {
      return held.ordinal != ordinal;
    });
    std::move(others, held_.end(), std::back_inserter(taken));
    held_.erase(others, held_.end());
    return taken;
  }

  const std::unique_ptr<CpuExecutor> cpu_ = *CpuExecutor::Create({kMostBatches, {}});
  std::atomic<int> unpinnable_{kNone};
  absl::Mutex mutex_;
  std::set<int> failed_ ABSL_GUARDED_BY(mutex_);
  std::optional<int> unloadable_ ABSL_GUARDED_BY(mutex_);
  std::vector<Held> held_ ABSL_GUARDED_BY(mutex_);
  int64_t most_elements_ ABSL_GUARDED_BY(mutex_) = std::numeric_limits<int64_t>::max();
  int64_t least_held_elements_ ABSL_GUARDED_BY(mutex_) = 1000;
};

class FaultyLane final : public Lane {
 public:
  FaultyLane(Devices& devices, int ordinal) : devices_(devices), ordinal_(ordinal) {}
  void Run(const Batch& batch, LaunchPlan, Finished finished) override {
    std::thread([this, &batch, finished = std::move(finished)]() mutable {
      devices_.Run(ordinal_, batch, std::move(finished));
    }).detach();
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

class FaultyLoader final : public WeightsLoader {
 public:
  explicit FaultyLoader(Devices& devices) : devices_(devices) {}

  absl::StatusOr<std::shared_ptr<const Weights>> Load(
      const MlpFiles& files, size_t index, const Weights* current,
      absl::FunctionRef<absl::Status(int64_t)> on_progress) override {
    LOG(INFO, "layer {} waits", files.layers()[index].number);
    const int ordinal = devices_.AwaitLetLoad();
    if (ordinal != Devices::kNone) return StickyStatus(ordinal, "simulated at weights");
    return loader_.Load(files, index, current, on_progress);
  }

 private:
  Devices& devices_;
  CpuWeightsLoader loader_;
};

void ObeyCommands(Devices& devices) {
  std::string command;
  int64_t value = 0;
  while (std::cin >> command >> value) {
    if (command == "sticky") devices.FailForGood(static_cast<int>(value));
    if (command == "release") devices.Release(static_cast<int>(value));
    if (command == "hold") devices.SetLeastHeldElements(value);
    if (command == "unpinnable") devices.FailAtMemory(static_cast<int>(value));
    if (command == "load") devices.LetLoad(Devices::kNone);
    if (command == "unloadable") devices.LetLoad(static_cast<int>(value));
    if (command == "memory") devices.SetMostElements(value);
    if (command == "lack") throw std::bad_alloc();
    if (command == "throw") throw std::logic_error("a fault of ours");
    LOG(INFO, "obeyed: {} {}", command, value);
  }
}

absl::StatusOr<CreatedExecutor> CreateFaultyExecutor(const ExecutorOptions& options) {
  auto& devices = *new Devices();  // for as long as the process lives, as the thread below
  std::vector<int> ordinals = options.ordinals;
  if (ordinals.empty()) ordinals = {0};
  if (ordinals.front() == kHangingDevice) {
    LOG(INFO, "device {} hangs", kHangingDevice);
    absl::Notification().WaitForNotification();
  }
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
  created.weights_loader = std::make_unique<ReportingLoader>(
      std::make_unique<FaultyLoader>(devices), &executor->faults());
  created.executor = std::move(executor);
  created.reason = "faulty: for tests";
  std::thread([&devices] { ObeyCommands(devices); }).detach();
  return created;
}

}  // namespace
}  // namespace swiglu::server

int main(int argc, char** argv) {
  return swiglu::server::RunProgram(argc, argv, swiglu::server::CreateFaultyExecutor);
}
