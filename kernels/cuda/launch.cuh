// SPDX-License-Identifier: Apache-2.0
//
// Checks, plans and launches: the host side that the forward and the backward launcher share.
#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <span>

#include "kernels/check_segments.h"
#include "kernels/cuda/launch_plan.h"
#include "kernels/cuda/swiglu_kernel.cuh"
#include "swiglu/cuda.h"
#include "swiglu/segment.h"

namespace swiglu::internal {

template <class Entry, int kCapacity>
const void* KernelFor(Dtype dtype) {
  switch (dtype) {
    case Dtype::kFp16:
      return reinterpret_cast<const void*>(SwigluKernel<Dtype::kFp16, Entry, kCapacity>);
    case Dtype::kBf16:
      return reinterpret_cast<const void*>(SwigluKernel<Dtype::kBf16, Entry, kCapacity>);
    case Dtype::kFp32:
      return reinterpret_cast<const void*>(SwigluKernel<Dtype::kFp32, Entry, kCapacity>);
  }
  return nullptr;
}

template <class Entry, int kCapacity, class Segment>
cudaError_t LaunchTable(Dtype dtype, std::span<const Segment> segments, const LaunchLimits& limits,
                        cudaStream_t stream) {
  SegmentTable<Entry, kCapacity> table;
  const Grid grid = PlanLaunch(segments, ElementBytes(dtype), limits.max_blocks, table);
  if (grid.num_blocks == 0) return cudaSuccess;
  void* arguments[] = {&table};
  // The call itself says whether it launched. cudaGetLastError would also return, and clear, an
  // error that an earlier call has left.
  return cudaLaunchKernel(KernelFor<Entry, kCapacity>(dtype), dim3(grid.num_blocks),
                          dim3(grid.threads_per_block), arguments, 0, stream);
}

template <class Segment>
cudaError_t Launch(Dtype dtype, std::span<const Segment> segments, const LaunchLimits& limits,
                   cudaStream_t stream) {
  using Entry = decltype(ToEntry(Segment()));
  if (segments.size() > kMaxSegments || limits.max_blocks < 0) return cudaErrorInvalidValue;
  switch (CheckSegments(dtype, segments)) {
    case KernelStatus::kOk:
      break;
    case KernelStatus::kMisaligned:
      return cudaErrorMisalignedAddress;
    default:
      return cudaErrorInvalidValue;
  }
  // The table is as small as it can be: the driver copies all of it at every launch.
  const auto num_filled = std::count_if(segments.begin(), segments.end(),
                                        [](const Segment& s) { return s.num_elements > 0; });
  if (num_filled <= 1) return LaunchTable<Entry, 1>(dtype, segments, limits, stream);
  if (num_filled <= 16) return LaunchTable<Entry, 16>(dtype, segments, limits, stream);
  return LaunchTable<Entry, kMaxSegments>(dtype, segments, limits, stream);
}

}  // namespace swiglu::internal
