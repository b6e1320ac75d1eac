// SPDX-License-Identifier: Apache-2.0
//
// The CUDA launchers and their kernels: checks, plans and launches.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <span>

#include "kernels/check_segments.h"
#include "kernels/cuda/launch_plan.h"
#include "kernels/cuda/swiglu_kernel.cuh"
#include "swiglu/cuda.h"
#include "swiglu/dtype.h"
#include "swiglu/segment.h"

namespace swiglu {
namespace internal {

// Returns the kernel of dtype kDtype for `table`.
template <Dtype kDtype, class Entry, int kCapacity>
const void* KernelFor(const SegmentTable<Entry, kCapacity>& table) {
  if constexpr (kCapacity == 1) {
    return reinterpret_cast<const void*>(SegmentKernel<kDtype, Entry>);
  } else {
    return table.same_alignment
               ? reinterpret_cast<const void*>(TableKernel<kDtype, Entry, kCapacity, false>)
               : reinterpret_cast<const void*>(TableKernel<kDtype, Entry, kCapacity, true>);
  }
}

template <class Entry, int kCapacity>
const void* KernelFor(Dtype dtype, const SegmentTable<Entry, kCapacity>& table) {
  switch (dtype) {
    case Dtype::kFp16:
      return KernelFor<Dtype::kFp16>(table);
    case Dtype::kBf16:
      return KernelFor<Dtype::kBf16>(table);
    case Dtype::kFp32:
      return KernelFor<Dtype::kFp32>(table);
  }
  return nullptr;
}

// The traits of the current device, or empty traits if CUDA fails. Asks CUDA once per device.
inline DeviceTraits CurrentDevice() {
  static std::array<std::atomic<uint64_t>, 64> known{};  // shared_bytes, compute_capability; or 0
  int device = 0;
  if (cudaGetDevice(&device) != cudaSuccess || device >= static_cast<int>(known.size())) return {};
  uint64_t packed = known[device].load(std::memory_order_relaxed);
  if (packed == 0) {
    int capability = 0, shared_bytes = 0;
    if (cudaDeviceGetAttribute(&capability, cudaDevAttrComputeCapabilityMajor, device) !=
            cudaSuccess ||
        cudaDeviceGetAttribute(&shared_bytes, cudaDevAttrMaxSharedMemoryPerMultiprocessor,
                               device) != cudaSuccess) {
      return {};
    }
    packed = static_cast<uint64_t>(shared_bytes) << 32 | static_cast<uint32_t>(capability);
    known[device].store(packed, std::memory_order_relaxed);
  }
  return {static_cast<int>(packed & 0xFFFFFFFFu), static_cast<int>(packed >> 32)};
}

template <class Entry, int kCapacity, class Segment>
cudaError_t LaunchTable(Dtype dtype, std::span<const Segment> segments, const LaunchLimits& limits,
                        cudaStream_t stream) {
  SegmentTable<Entry, kCapacity> table;
  const DeviceTraits device = CurrentDevice();
  const Grid grid = PlanLaunch(segments, ElementBytes(dtype), limits.max_blocks, device, table);
  // The kernel for one segment needs a block for each tile, and aligned slots.
  if constexpr (kCapacity == 1) {
    if (grid.num_blocks != table.num_tiles || !table.same_alignment) {
      return LaunchTable<Entry, 16>(dtype, segments, limits, stream);
    }
  }
  if (grid.num_blocks == 0) return cudaSuccess;
  cudaLaunchAttribute early{};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(grid.num_blocks);
  config.blockDim = dim3(grid.threads_per_block);
  config.dynamicSmemBytes = grid.shared_bytes;
  config.stream = stream;
  config.attrs = &early;
  config.numAttrs = StartsEarly(device) ? 1 : 0;
  void* arguments[] = {kCapacity == 1 ? static_cast<void*>(table.entries) : &table};
  // This call itself returns whether it launched. cudaGetLastError would also return, and clear, an
  // error that an earlier call has left.
  return cudaLaunchKernelExC(&config, KernelFor(dtype, table), arguments);
}

template <class Segment>
cudaError_t Launch(Dtype dtype, std::span<const Segment> segments, const LaunchLimits& limits,
                   cudaStream_t stream) {
  using Entry = decltype(ToEntry(Segment()));
  if (segments.size() > kMaxSegments || limits.max_blocks < 0) return cudaErrorInvalidValue;
  // Never cudaErrorMisalignedAddress: that code would mean that the device is lost.
  if (CheckSegments(dtype, segments) != KernelStatus::kOk) return cudaErrorInvalidValue;
  // Takes the smallest table with room for the segments: each launch copies the whole table.
  const auto num_filled = std::count_if(segments.begin(), segments.end(),
                                        [](const Segment& s) { return s.num_elements > 0; });
  if (num_filled <= 1) return LaunchTable<Entry, 1>(dtype, segments, limits, stream);
  if (num_filled <= 16) return LaunchTable<Entry, 16>(dtype, segments, limits, stream);
  if (num_filled <= 64) return LaunchTable<Entry, 64>(dtype, segments, limits, stream);
  return LaunchTable<Entry, kMaxSegments>(dtype, segments, limits, stream);
}

}  // namespace internal

cudaError_t ForwardCuda(Dtype dtype, std::span<const ForwardSegment> segments,
                        const LaunchLimits& limits, cudaStream_t stream) {
  return internal::Launch(dtype, segments, limits, stream);
}

cudaError_t BackwardCuda(Dtype dtype, std::span<const BackwardSegment> segments,
                         const LaunchLimits& limits, cudaStream_t stream) {
  return internal::Launch(dtype, segments, limits, stream);
}

}  // namespace swiglu
