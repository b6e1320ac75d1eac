// SPDX-License-Identifier: Apache-2.0
//
// The checks of arguments that the CPU and the CUDA launchers share. Private to the kernels.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "swiglu/dtype.h"
#include "swiglu/segment.h"

namespace swiglu::internal {

inline std::array<const void*, 3> Pointers(const ForwardSegment& s) { return {s.e, s.g, s.h}; }
inline std::array<const void*, 6> Pointers(const BackwardSegment& s) {
  return {s.dw, s.e, s.g, s.h, s.df, s.de};
}

// Returns kBadDtype, or what is wrong with the first faulty segment, or kOk.
template <typename Segment>
KernelStatus CheckSegments(Dtype dtype, std::span<const Segment> segments) {
  if (dtype != Dtype::kFp16 && dtype != Dtype::kBf16 && dtype != Dtype::kFp32) {
    return KernelStatus::kBadDtype;
  }
  for (const Segment& segment : segments) {
    if (segment.num_elements < 0) return KernelStatus::kNegativeCount;
    if (segment.num_elements == 0) continue;
    for (const void* pointer : Pointers(segment)) {
      if (pointer == nullptr) return KernelStatus::kNullPointer;
      if (reinterpret_cast<uintptr_t>(pointer) % ElementBytes(dtype) != 0) {
        return KernelStatus::kMisaligned;
      }
    }
  }
  return KernelStatus::kOk;
}

}  // namespace swiglu::internal
