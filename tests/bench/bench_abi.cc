// SPDX-License-Identifier: Apache-2.0
//
// The kernels behind C functions, as a shared library: what triton_baseline.py --lib and
// torch_mlp.py load.
#include <cuda_runtime_api.h>

#include <cstdint>

#include "swiglu/cuda.h"
#include "swiglu/cuda_mlp.h"

// All but the one that says bytes return 0 on success; they launch on `stream` and do not
// synchronize.
//
// Element-wise: dtype is 0 FP16, 1 BF16, 2 FP32. Backward is in place: h over dw, df over e, de
// over g.
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

// A whole MLP: dtype is 0 FP16, 1 BF16. `gate_up` is interleaved as
// CudaMlpWeights says. The workspace is enough for any call on as many tokens.
extern "C" int64_t swiglu_bench_mlp_workspace_bytes(int64_t hidden, int64_t intermediate,
                                                    int64_t num_tokens) {
  const swiglu::CudaMlpWeights weights{swiglu::Dtype::kBf16, hidden, intermediate, nullptr,
                                       nullptr};
  return swiglu::MlpGradientsWorkspaceBytes(weights, num_tokens);
}

extern "C" int swiglu_bench_mlp_forward(int dtype, int64_t hidden, int64_t intermediate,
                                        const void* gate_up, const void* down, const void* x,
                                        void* y, int64_t num_tokens, void* workspace,
                                        int64_t workspace_bytes, void* stream) {
  return swiglu::MlpForwardCuda(
      {static_cast<swiglu::Dtype>(dtype), hidden, intermediate, gate_up, down},
      {x, y, num_tokens, workspace, workspace_bytes}, swiglu::MlpPath::kAuto,
      static_cast<cudaStream_t>(stream));
}

// The gradients of the weights are computed unless these pointers are null.
extern "C" int swiglu_bench_mlp_backward(int dtype, int64_t hidden, int64_t intermediate,
                                         const void* gate_up, const void* down, const void* x,
                                         const void* dy, void* dx, float* d_gate, float* d_up,
                                         float* d_down, int64_t num_tokens, void* workspace,
                                         int64_t workspace_bytes, void* stream) {
  swiglu::CudaMlpBackward call{x, dy, dx, num_tokens, workspace, workspace_bytes};
  call.gradients = {d_gate, d_up, d_down};
  return swiglu::MlpBackwardCuda(
      {static_cast<swiglu::Dtype>(dtype), hidden, intermediate, gate_up, down}, call,
      swiglu::MlpPath::kAuto, static_cast<cudaStream_t>(stream));
}
