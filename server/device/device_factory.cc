// SPDX-License-Identifier: Apache-2.0
//
// From options to a running executor. The only source in the server that knows whether the build
// has CUDA.
#include "server/device/device_factory.h"

#include <algorithm>
#include <thread>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "server/device/cpu_executor.h"
#include "server/device/cpu_weights.h"
#include "server/device/shared_file.h"
#ifdef SWIGLU_CUDA
#include "server/device/cuda_executor.h"
#include "server/device/cuda_region_opener.h"
#include "server/device/cuda_weights.h"
#include "server/device/reporting_loader.h"
#include "server/gpu/cuda_probe.h"
#endif

namespace swiglu::server {
namespace {

int NumCores() { return std::max(1, static_cast<int>(std::thread::hardware_concurrency())); }

absl::StatusOr<CreatedExecutor> CreateCpu(const ExecutorOptions& options, std::string reason) {
  CpuExecutorOptions cpu_options;
  cpu_options.num_lanes = options.lanes_per_device;
  if (options.lanes_per_device == 0) {
    cpu_options.num_lanes = NumCores();
  }
  if (!options.mlp_shapes.empty()) cpu_options.mlp_threads = NumCores();
  cpu_options.memory = options.memory;
  absl::StatusOr<std::unique_ptr<CpuExecutor>> executor = CpuExecutor::Create(cpu_options);
  if (!executor.ok()) return executor.status();
  const CachingSlabPool* pool = &(*executor)->slab_pool();
  return CreatedExecutor{*std::move(executor),
                         pool,
                         std::make_unique<HostRegionOpener>(options.region_prefix),
                         {},
                         std::move(reason),
                         std::make_unique<CpuWeightsLoader>()};
}

#ifdef SWIGLU_CUDA

absl::StatusOr<CreatedExecutor> CreateCuda(const ExecutorOptions& options, DeviceChoice choice) {
  CudaExecutorOptions cuda_options;
  cuda_options.devices = choice.cuda_devices;
  cuda_options.lanes_per_device = options.lanes_per_device;
  if (options.lanes_per_device == 0) {
    cuda_options.lanes_per_device = kDefaultCudaLanes;
    cuda_options.large_lanes_per_device = kDefaultLargeLanes;
  }
  cuda_options.resident_lanes_per_device = options.takes_cuda_regions ? kResidentLanes : 0;
  cuda_options.mlp_shapes = options.mlp_shapes;
  cuda_options.mlp_lanes_per_device = kMlpLanes;
  cuda_options.memory = options.memory;
  cuda_options.observer = options.observer;
  absl::StatusOr<std::unique_ptr<LaneExecutor>> executor =
      CreateCudaExecutor(std::move(cuda_options));
  if (!executor.ok()) return executor.status();
  const CachingSlabPool* pool = &(*executor)->slab_pool();
  std::vector<int> ordinals;
  for (const DeviceInfo& device : choice.cuda_devices) ordinals.push_back(device.ordinal);
  int64_t max_tokens = 1;
  for (const MlpShape& shape : options.mlp_shapes) {
    max_tokens = std::max(max_tokens, shape.max_tokens);
  }
  auto loader = std::make_unique<ReportingLoader>(
      std::make_unique<CudaWeightsLoader>(ordinals, options.mlp_replicas, max_tokens),
      &(*executor)->faults());
  return CreatedExecutor{
      *std::move(executor),
      pool,
      std::make_unique<CudaRegionOpener>(std::move(ordinals), options.region_prefix),
      std::move(choice.cuda_devices),
      absl::StrCat(choice.reason, ", driver ", CudaDriverVersion()),
      std::move(loader)};
}

#else

absl::StatusOr<std::vector<DeviceInfo>> FindCudaDevices() {
  return absl::FailedPreconditionError("this build has no CUDA support");
}

absl::StatusOr<CreatedExecutor> CreateCuda(const ExecutorOptions&, const DeviceChoice&) {
  return FindCudaDevices().status();
}

#endif

}  // namespace

absl::StatusOr<CreatedExecutor> CreateExecutor(const ExecutorOptions& options) {
  if (options.lanes_per_device < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("lanes per device cannot be ", options.lanes_per_device));
  }
  absl::StatusOr<std::vector<DeviceInfo>> found = std::vector<DeviceInfo>();
  if (options.device != DeviceKind::kCpu) found = FindCudaDevices();
  absl::StatusOr<DeviceChoice> choice = ChooseDevices(options.device, options.ordinals, found);
  if (!choice.ok()) return choice.status();
  const auto num_devices = std::max(static_cast<int>(choice->cuda_devices.size()), 1);
  if (!options.mlp_shapes.empty() && options.mlp_replicas > num_devices) {
    return absl::FailedPreconditionError(
        absl::StrCat("each of the ", options.mlp_replicas,
                     " replicas of an MLP needs a device of its own; this server has ", num_devices,
                     " (", choice->reason, ")"));
  }
  if (choice->cuda_devices.empty()) return CreateCpu(options, std::move(choice->reason));

  absl::StatusOr<CreatedExecutor> created = CreateCuda(options, *std::move(choice));
  const bool may_take_cpu =
      options.device == DeviceKind::kAuto && options.ordinals.empty() && options.mlp_replicas == 1;
  if (created.ok() || !may_take_cpu) return created;
  return CreateCpu(options, absl::StrCat("cpu: ", created.status().message()));
}

}  // namespace swiglu::server
