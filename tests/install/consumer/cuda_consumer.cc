// SPDX-License-Identifier: Apache-2.0
//
// A program outside the project that computes SwiGLU backward with the kernels library on a GPU, in
// place. Without a device it says so and ends.
#include <cuda_runtime_api.h>

#include <cstdint>
#include <cstdio>
#include <vector>

#include "swiglu/cuda.h"

int main() {
  constexpr int64_t kNumElements = 1000;
  constexpr size_t kBytes = kNumElements * sizeof(float);
  float* d_tensors[3] = {};  // dw, e and g; afterwards h, df and de
  cudaStream_t stream = nullptr;
  cudaError_t error = cudaStreamCreate(&stream);
  if (error != cudaSuccess) {
    std::printf("skipped: no CUDA device: %s\n", cudaGetErrorString(error));
    return 0;
  }
  const std::vector<float> ones(kNumElements, 1.0f);
  for (float*& d_tensor : d_tensors) {
    if (cudaMalloc(reinterpret_cast<void**>(&d_tensor), kBytes) != cudaSuccess) return 1;
    cudaMemcpyAsync(d_tensor, ones.data(), kBytes, cudaMemcpyHostToDevice, stream);
  }
  const auto [d_dw, d_e, d_g] = d_tensors;
  const swiglu::BackwardSegment segment{.dw = d_dw,
                                        .e = d_e,
                                        .g = d_g,
                                        .h = d_dw,
                                        .df = d_e,
                                        .de = d_g,
                                        .num_elements = kNumElements};
  error = swiglu::BackwardCuda(swiglu::Dtype::kFp32, {&segment, 1}, {}, stream);

  float h = 0, df = 0, de = 0;
  cudaMemcpyAsync(&h, d_dw, sizeof(h), cudaMemcpyDeviceToHost, stream);
  cudaMemcpyAsync(&df, d_e, sizeof(df), cudaMemcpyDeviceToHost, stream);
  cudaMemcpyAsync(&de, d_g, sizeof(de), cudaMemcpyDeviceToHost, stream);
  if (error == cudaSuccess) error = cudaStreamSynchronize(stream);
  std::printf("%s: h %.6f, df %.6f, de %.6f\n", cudaGetErrorString(error), h, df, de);
  for (float* d_tensor : d_tensors) cudaFree(d_tensor);
  cudaStreamDestroy(stream);
  // 1 / (1 + exp(-1)), and that times (1 + 1 - itself).
  const bool right = h > 0.73105f && h < 0.73106f && df == h && de > 0.92766f && de < 0.92768f;
  return error == cudaSuccess && right ? 0 : 1;
}
