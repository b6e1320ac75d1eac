// SPDX-License-Identifier: Apache-2.0
//
// The kernels behind two C functions, as a shared library: what triton_baseline.py --lib loads.
#include <cuda_runtime_api.h>

#include <cstdint>

#include "swiglu/cuda.h"

// Both return 0 on success; they launch on `stream` and do not synchronize. dtype: 0 FP16, 1 BF16,
// 2 FP32. Backward is in place: h over dw, df over e, de over g.
extern "C" int swiglu_bench_forward(int dtype, const void* e, const void* g, void* h, int64_t n,
                                    void* stream) {
  const swiglu::ForwardSegment segment{e, g, h, n};
  return swiglu::ForwardCuda(static_cast<swiglu::Dtype>(dtype), {&segment, 1}, {},
                             static_cast<cudaStream_t>(stream));
}

extern "C" int swiglu_bench_backward(int dtype, void* dw, void* e, void* g, int64_t n,
                                     void* stream) {
  const swiglu::BackwardSegment segment{dw, e, g, dw, e, g, n};
  return swiglu::BackwardCuda(static_cast<swiglu::Dtype>(dtype), {&segment, 1}, {},
                              static_cast<cudaStream_t>(stream));
}
