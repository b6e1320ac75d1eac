// SPDX-License-Identifier: Apache-2.0
//
// The forward launcher and its kernels.
#include "kernels/cuda/launch.cuh"
#include "swiglu/cuda.h"

namespace swiglu {

cudaError_t ForwardCuda(Dtype dtype, std::span<const ForwardSegment> segments,
                        const LaunchLimits& limits, cudaStream_t stream) {
  return internal::Launch(dtype, segments, limits, stream);
}

}  // namespace swiglu
