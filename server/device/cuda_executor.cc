// SPDX-License-Identifier: Apache-2.0
//
// Slabs, lanes and warm-up.
#include "server/device/cuda_executor.h"

#include <cuda_runtime_api.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "server/device/cuda_lane.h"
#include "server/device/warm_up.h"
#include "server/gpu/cuda_handles.h"
#include "server/gpu/cuda_status.h"
#include "server/log/log.h"
#include "server/memory/pinned_memory.h"

namespace swiglu::server {
namespace {

// Slabs to have ready before the first request: two of every class up to 16 MiB, in a quarter of
// the pool at most.
std::vector<size_t> FirstSlabs(size_t capacity_bytes) {
  constexpr size_t kLargest = size_t{16} << 20;
  std::vector<size_t> sizes;
  size_t total_bytes = 0;
  for (int size_class = 0; SizeClassBytes(size_class) <= kLargest; ++size_class) {
    total_bytes += 2 * SizeClassBytes(size_class);
    if (total_bytes > capacity_bytes / 4) break;
    sizes.insert(sizes.end(), 2, SizeClassBytes(size_class));
  }
  return sizes;
}

// FAILED_PRECONDITION unless the device sees slabs where the host does.
absl::Status CheckAddresses(int ordinal, SlabPool& slab_pool) {
  absl::StatusOr<Slab> slab = slab_pool.Acquire(1);
  if (!slab.ok()) return slab.status();
  if (absl::Status status = UseCudaDevice(ordinal); !status.ok()) return status;
  void* d_slab = nullptr;
  const cudaError_t error = cudaHostGetDevicePointer(&d_slab, slab->data.get(), 0);
  if (error != cudaSuccess) return CudaStatus(error, ordinal);
  if (d_slab == slab->data.get()) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      "device ", ordinal, " sees pinned host memory at another address than the host does"));
}

using Lanes = std::vector<std::unique_ptr<Lane>>;

absl::StatusOr<Lanes> MakeLanes(int ordinal, int num_lanes, LaneUse use, SlabPool& slab_pool) {
  Lanes lanes;
  for (int i = 0; i < num_lanes; ++i) {
    absl::StatusOr<std::unique_ptr<CudaLane>> lane = CudaLane::Create(ordinal, use);
    if (!lane.ok()) return lane.status();
    if (absl::Status status = WarmUp(**lane, ordinal, slab_pool, use); !status.ok()) return status;
    lanes.push_back(*std::move(lane));
  }
  return lanes;
}

// FAILED_PRECONDITION unless the device has the instructions of the kernels of MLPs.
absl::Status CheckMlpDevice(const DeviceInfo& info) {
  constexpr int kOldestMajor = 8;
  int major = 0;
  int minor = 0;
  cudaError_t error =
      cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, info.ordinal);
  if (error == cudaSuccess) {
    error = cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, info.ordinal);
  }
  if (error != cudaSuccess) return CudaStatus(error, info.ordinal);
  if (major >= kOldestMajor) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("MLPs need a device of compute capability 8.0 or newer; device ", info.ordinal,
                   " (", info.name, ") has ", major, ".", minor));
}

// No lanes if there are no shapes.
absl::StatusOr<Lanes> MakeMlpLanes(const DeviceInfo& info, const CudaExecutorOptions& options) {
  Lanes lanes;
  if (options.mlp_shapes.empty()) return lanes;
  if (absl::Status status = CheckMlpDevice(info); !status.ok()) return status;
  for (int i = 0; i < options.mlp_lanes_per_device; ++i) {
    absl::StatusOr<std::unique_ptr<CudaLane>> lane =
        CudaLane::CreateForMlps(info.ordinal, options.mlp_shapes);
    if (!lane.ok()) return lane.status();
    lanes.push_back(*std::move(lane));
  }
  return lanes;
}

absl::StatusOr<LaneDevice> SetUpDevice(const DeviceInfo& info, const CudaExecutorOptions& options,
                                       SlabPool& slab_pool) {
  if (absl::Status status = CheckAddresses(info.ordinal, slab_pool); !status.ok()) return status;
  absl::StatusOr<Lanes> lanes =
      MakeLanes(info.ordinal, options.lanes_per_device, LaneUse::kAny, slab_pool);
  if (!lanes.ok()) return lanes.status();
  absl::StatusOr<Lanes> resident_lanes =
      MakeLanes(info.ordinal, options.resident_lanes_per_device, LaneUse::kResident, slab_pool);
  if (!resident_lanes.ok()) return resident_lanes.status();
  absl::StatusOr<Lanes> mlp_lanes = MakeMlpLanes(info, options);
  if (!mlp_lanes.ok()) return mlp_lanes.status();
  return LaneDevice{info.ordinal,          absl::StrCat("cuda:", info.ordinal, " ", info.name),
                    *std::move(lanes),     *std::move(resident_lanes),
                    *std::move(mlp_lanes), options.large_lanes_per_device};
}

}  // namespace

absl::StatusOr<std::unique_ptr<LaneExecutor>> CreateCudaExecutor(CudaExecutorOptions options) {
  if (options.devices.empty()) return absl::InvalidArgumentError("no CUDA device was named");
  if (options.lanes_per_device < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("a device needs at least 1 lane, not ", options.lanes_per_device));
  }
  CHECK(options.large_lanes_per_device < options.lanes_per_device);
  auto faults = std::make_unique<DeviceFaults>(options.observer);
  auto slab_pool = std::make_unique<CachingSlabPool>(
      MakePinnedMemory(options.devices.front().ordinal, faults.get()), options.memory);
  std::vector<LaneDevice> devices;
  for (const DeviceInfo& info : options.devices) {
    absl::StatusOr<LaneDevice> device = SetUpDevice(info, options, *slab_pool);
    if (!device.ok()) return device.status();
    devices.push_back(*std::move(device));
  }
  absl::Status status = slab_pool->Reserve(FirstSlabs(options.memory.capacity_bytes));
  if (!status.ok()) return status;
  return std::make_unique<LaneExecutor>(std::move(devices), std::move(slab_pool),
                                        std::move(faults));
}

}  // namespace swiglu::server
