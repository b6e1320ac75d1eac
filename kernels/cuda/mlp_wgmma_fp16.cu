// SPDX-License-Identifier: Apache-2.0
//
// The products of the wgmma path in FP16.
#include "kernels/cuda/mlp_wgmma_launch.cuh"

namespace swiglu::internal {

template cudaError_t LaunchWgmma<Dtype::kFp16>(const Product&, const TileSize&, const MlpDevice&,
                                               cudaStream_t);

}  // namespace swiglu::internal
