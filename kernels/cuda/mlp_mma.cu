// SPDX-License-Identifier: Apache-2.0
//
// Launches the products of the mma.sync path: one kernel for each dtype, tile and layout.
#include <cuda_runtime_api.h>

#include "kernels/cuda/mlp_launch.cuh"
#include "kernels/cuda/mlp_mma.cuh"
#include "kernels/cuda/mlp_plan.h"
#include "swiglu/dtype.h"

namespace swiglu::internal {
namespace {

template <Dtype kDtype>
cudaError_t Launch(const Product& product, const TileSize& tile, const MlpDevice& device,
                   cudaStream_t stream) {
  const auto is = [&]<class Tile>(Tile) { return tile == TileSize{Tile::kOutputs, Tile::kTokens}; };
  if (product.layout == WeightsLayout::kDepthMajor) {
    constexpr WeightsLayout kLayout = WeightsLayout::kDepthMajor;
    if (is(Mma64x16{})) return LaunchMmaTile<kDtype, Mma64x16, kLayout>(product, device, stream);
    if (is(Mma64x64{})) return LaunchMmaTile<kDtype, Mma64x64, kLayout>(product, device, stream);
    if (is(Mma128x128{}))
      return LaunchMmaTile<kDtype, Mma128x128, kLayout>(product, device, stream);
  } else {
    constexpr WeightsLayout kLayout = WeightsLayout::kOutputMajor;
    if (is(Mma32x16{})) return LaunchMmaTile<kDtype, Mma32x16, kLayout>(product, device, stream);
    if (is(Mma64x16{})) return LaunchMmaTile<kDtype, Mma64x16, kLayout>(product, device, stream);
    if (is(Mma32x64{})) return LaunchMmaTile<kDtype, Mma32x64, kLayout>(product, device, stream);
    if (is(Mma128x64{})) return LaunchMmaTile<kDtype, Mma128x64, kLayout>(product, device, stream);
    if (is(Mma128x128{}))
      return LaunchMmaTile<kDtype, Mma128x128, kLayout>(product, device, stream);
  }
  return cudaErrorInvalidConfiguration;
}

}  // namespace

cudaError_t LaunchMma(Dtype dtype, const Product& product, const TileSize& tile,
                      const MlpDevice& device, cudaStream_t stream) {
  return dtype == Dtype::kFp16 ? Launch<Dtype::kFp16>(product, tile, device, stream)
                               : Launch<Dtype::kBf16>(product, tile, device, stream);
}

}  // namespace swiglu::internal
