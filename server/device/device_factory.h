// SPDX-License-Identifier: Apache-2.0
//
// Makes the server's executor: looks at the host, chooses the devices, and makes the executor
// ready. This header does not depend on whether the build has CUDA.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/core/executor.h"
#include "server/core/observer.h"
#include "server/core/region.h"
#include "server/device/mlp_shape.h"
#include "server/gpu/device_choice.h"
#include "server/memory/slab_pool.h"
#include "server/weights/weights_loader.h"

namespace swiglu::server {

// The lanes of a CUDA device if the options name no number, and how many of them take only large
// batches. Three large batches keep both directions of the bus busy. Small batches do better with
// two lanes, because with three each batch has fewer requests.
inline constexpr int kDefaultCudaLanes = 3;
inline constexpr int kDefaultLargeLanes = 1;

// Its lanes for resident batches. The device computes one batch while the other is launched or
// answered. With four lanes, batches of small requests are smaller, and a fifth fewer requests are
// done (32 KiB, 64 in flight, on an H200).
inline constexpr int kResidentLanes = 2;

// Its lanes for batches of MLPs: one pass runs, while another batch comes in or its results go out.
inline constexpr int kMlpLanes = 3;

struct ExecutorOptions {
  DeviceKind device = DeviceKind::kAuto;
  // CUDA ordinals to use, in this order; empty: all. If any ordinal is named, `kAuto` behaves like
  // `kCuda`.
  std::vector<int> ordinals;
  // The most batches in flight on each device, without resident ones; the CPU counts as one device.
  // 0: on a CUDA device kDefaultCudaLanes, of which kDefaultLargeLanes take only large batches; one
  // per core on the CPU.
  int lanes_per_device = 0;
  // The slab pool's memory.
  CachingSlabPoolOptions memory;
  // Whether batches may have all their tensors in CUDA regions.
  bool takes_cuda_regions = false;
  // The text with which the file names of system regions must begin.
  std::string region_prefix;
  // The MLPs whose batches come, each shape once; empty: none come.
  std::vector<MlpShape> mlp_shapes;
  // The devices on which each layer of an MLP lies.
  int mlp_replicas = 1;
  // Receives the device errors; may be nullptr. Must outlive the executor.
  Observer* observer = nullptr;
};

// An executor that is warmed up, and facts about it.
struct CreatedExecutor {
  std::unique_ptr<Executor> executor;
  // The executor's own pool, for the metrics.
  const CachingSlabPool* slab_pool = nullptr;
  // Opens regions that the executor's batches may use.
  std::unique_ptr<RegionOpener> region_opener;
  // Empty on the CPU.
  std::vector<DeviceInfo> cuda_devices;
  // One line for the log: "cuda: device 0 NVIDIA H100 80GB HBM3, driver 13.0", "cpu: no NVIDIA
  // driver".
  std::string reason;
  // Makes weights ready for the executor's batches. Must not outlive the executor.
  std::unique_ptr<WeightsLoader> weights_loader = nullptr;
};

// Makes the executor that `options` ask for. Takes up to a few hundred milliseconds per CUDA
// device. If CUDA was asked for and is not available, it never takes the CPU instead. It then
// returns an error that says why: FAILED_PRECONDITION (a build without CUDA, no driver, no device,
// fewer devices than replicas), INVALID_ARGUMENT (a wrong ordinal or option), RESOURCE_EXHAUSTED
// (too little memory), INTERNAL (the device fails). With `kAuto`, it takes the CPU if CUDA is not
// available or a device fails.
absl::StatusOr<CreatedExecutor> CreateExecutor(const ExecutorOptions& options);

}  // namespace swiglu::server
