// SPDX-License-Identifier: Apache-2.0
//
// Launches the gradients of an MLP's weights: one kernel for each dtype.
#include <cuda_runtime_api.h>

#include "kernels/cuda/mlp_gradient_mma.cuh"
#include "kernels/cuda/mlp_launch.cuh"
#include "kernels/cuda/mlp_plan.h"
#include "swiglu/dtype.h"

namespace swiglu::internal {

cudaError_t LaunchGradientMma(Dtype dtype, const GradientProduct& product, const MlpDevice& device,
                              cudaStream_t stream) {
  return dtype == Dtype::kFp16 ? LaunchMmaGradientKernel<Dtype::kFp16>(product, device, stream)
                               : LaunchMmaGradientKernel<Dtype::kBf16>(product, device, stream);
}

}  // namespace swiglu::internal
