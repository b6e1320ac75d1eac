// SPDX-License-Identifier: Apache-2.0
//
// A program outside the project that computes SwiGLU with the kernels library, on the CPU.
#include <cmath>
#include <cstdio>
#include <vector>

#include "swiglu/cpu.h"

int main() {
  const std::vector<float> e = {-1.0f, 0.0f, 1.0f, 2.0f};
  const std::vector<float> g = {1.0f, 2.0f, 3.0f, 4.0f};
  std::vector<float> h(e.size());
  const swiglu::ForwardSegment segment{
      .e = e.data(), .g = g.data(), .h = h.data(), .num_elements = 4};
  const swiglu::KernelStatus status = swiglu::ForwardCpu(swiglu::Dtype::kFp32, {&segment, 1});
  if (status != swiglu::KernelStatus::kOk) {
    std::printf("ForwardCpu: %s\n", swiglu::ToString(status));
    return 1;
  }
  for (size_t i = 0; i < h.size(); ++i) {
    const double expected = e[i] / (1 + std::exp(-double{e[i]})) * g[i];
    std::printf("h[%zu] = %.6f\n", i, h[i]);
    if (std::fabs(h[i] - expected) > 1e-6 * std::fabs(expected)) return 1;
  }
  std::printf("computed with %s\n", swiglu::CpuTarget());
  return 0;
}
