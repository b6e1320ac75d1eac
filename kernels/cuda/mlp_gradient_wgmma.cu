// SPDX-License-Identifier: Apache-2.0
//
// Launches the gradients of an MLP's weights by wgmma: one kernel for each dtype. Compiles for
// sm_90a only.
#include <cuda_runtime_api.h>

#include "kernels/cuda/mlp_gradient_wgmma.cuh"
#include "kernels/cuda/mlp_launch.cuh"
#include "kernels/cuda/mlp_plan.h"
#include "swiglu/dtype.h"

namespace swiglu::internal {

cudaError_t LaunchGradientWgmma(Dtype dtype, const GradientProduct& product, cudaStream_t stream) {
  return dtype == Dtype::kFp16 ? LaunchWgmmaGradientKernel<Dtype::kFp16>(product, stream)
                               : LaunchWgmmaGradientKernel<Dtype::kBf16>(product, stream);
}

}  // namespace swiglu::internal
