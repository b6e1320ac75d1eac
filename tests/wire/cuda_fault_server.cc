// SPDX-License-Identifier: Apache-2.0
//
// The program swiglu-server on CUDA devices that requests can break, in earnest: everything is the
// program's own, lanes included, but some requests start a kernel that faults in front of their
// own. For cuda_fault_test.py, on a host with a GPU; nobody can use the device after that but by a
// new process. Which requests do is decided by their number of elements. Each load of weights does.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/device/cuda_lane.h"
#include "server/device/cuda_weights.h"
#include "server/device/device_factory.h"
#include "server/device/lane_executor.h"
#include "server/device/reporting_loader.h"
#include "server/device/warm_up.h"
#include "server/gpu/cuda_handles.h"
#include "server/gpu/cuda_probe.h"
#include "server/log/log.h"
#include "server/memory/pinned_memory.h"
#include "server/program.h"
#include "tests/wire/cuda_faults.h"

namespace swiglu::server {
namespace {

// The kernel of such a request waits for the one that faults.
constexpr int64_t kTrapElements = 5001;
constexpr int64_t kIllegalAddressElements = 5002;
// The device is broken before the kernel is launched.
constexpr int64_t kTrapFirstElements = 5003;

class BreakableLane final : public Lane {
 public:
  BreakableLane(int ordinal, std::unique_ptr<CudaLane> lane, CudaStream stream)
      : ordinal_(ordinal), stream_(std::move(stream)), lane_(std::move(lane)) {}

  void Run(const Batch& batch, LaunchPlan plan, Finished finished) override {
    const int64_t num_elements = batch.segments[0].num_elements;
    CHECK(UseCudaDevice(ordinal_).ok());
    if (num_elements == kTrapElements || num_elements == kTrapFirstElements) {
      CHECK(LaunchFault(KernelFault::kTrap, stream_.get()) == cudaSuccess);
    }
    if (num_elements == kIllegalAddressElements) {
      CHECK(LaunchFault(KernelFault::kIllegalAddress, stream_.get()) == cudaSuccess);
    }
    if (num_elements == kTrapFirstElements) cudaStreamSynchronize(stream_.get());
    lane_->Run(batch, std::move(plan), std::move(finished));
  }

 private:
  const int ordinal_;
  const CudaStream stream_;
  const std::unique_ptr<CudaLane> lane_;
};

// Loads weights beside a kernel that faults.
class BreakingLoader final : public WeightsLoader {
 public:
  BreakingLoader(int ordinal, CudaStream stream)
      : ordinal_(ordinal), stream_(std::move(stream)), loader_({ordinal}, 1, 1) {}

  absl::StatusOr<std::shared_ptr<const Weights>> Load(
      const MlpFiles& files, size_t index, const Weights* current,
      absl::FunctionRef<absl::Status(int64_t)> on_progress) override {
    CHECK(UseCudaDevice(ordinal_).ok());
    CHECK(LaunchFault(KernelFault::kTrap, stream_.get()) == cudaSuccess);
    return loader_.Load(files, index, current, on_progress);
  }

 private:
  const int ordinal_;
  const CudaStream stream_;
  CudaWeightsLoader loader_;
};

absl::StatusOr<LaneDevice> MakeDevice(const DeviceInfo& info, int num_lanes, SlabPool& slab_pool) {
  LaneDevice device{info.ordinal, absl::StrCat("breakable cuda:", info.ordinal), {}};
  for (int i = 0; i < num_lanes; ++i) {
    absl::StatusOr<std::unique_ptr<CudaLane>> lane = CudaLane::Create(info.ordinal);
    if (!lane.ok()) return lane.status();
    absl::StatusOr<CudaStream> stream = MakeCudaStream(info.ordinal);
    if (!stream.ok()) return stream.status();
    device.lanes.push_back(
        std::make_unique<BreakableLane>(info.ordinal, *std::move(lane), *std::move(stream)));
    absl::Status status = WarmUp(*device.lanes.back(), info.ordinal, slab_pool);
    if (!status.ok()) return status;
  }
  return device;
}

absl::StatusOr<CreatedExecutor> CreateBreakableExecutor(const ExecutorOptions& options) {
  absl::StatusOr<DeviceChoice> choice =
      ChooseDevices(DeviceKind::kCuda, options.ordinals, FindCudaDevices());
  if (!choice.ok()) return choice.status();
  auto faults = std::make_unique<DeviceFaults>(options.observer);
  auto slab_pool = std::make_unique<CachingSlabPool>(
      MakePinnedMemory(choice->cuda_devices[0].ordinal, faults.get()), options.memory);
  std::vector<LaneDevice> devices;
  for (const DeviceInfo& info : choice->cuda_devices) {
    absl::StatusOr<LaneDevice> device =
        MakeDevice(info, std::max(options.lanes_per_device, 1), *slab_pool);
    if (!device.ok()) return device.status();
    devices.push_back(*std::move(device));
  }
  const int first = choice->cuda_devices[0].ordinal;
  absl::StatusOr<CudaStream> stream = MakeCudaStream(first);
  if (!stream.ok()) return stream.status();
  auto executor =
      std::make_unique<LaneExecutor>(std::move(devices), std::move(slab_pool), std::move(faults));
  const CachingSlabPool* pool = &executor->slab_pool();
  auto loader = std::make_unique<ReportingLoader>(
      std::make_unique<BreakingLoader>(first, *std::move(stream)), &executor->faults());
  return CreatedExecutor{std::move(executor),
                         pool,
                         nullptr,
                         std::move(choice->cuda_devices),
                         std::move(choice->reason),
                         std::move(loader)};
}

}  // namespace
}  // namespace swiglu::server

int main(int argc, char** argv) {
  return swiglu::server::RunProgram(argc, argv, swiglu::server::CreateBreakableExecutor);
}
