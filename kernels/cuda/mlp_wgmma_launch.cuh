// SPDX-License-Identifier: Apache-2.0
//
// Launches the products of the wgmma path: one kernel for each tile and end of a product. Private
// to the kernels. mlp_wgmma_fp16.cu and mlp_wgmma_bf16.cu compile it, side by side, for sm_90a
// only.
#pragma once

#include <cuda_runtime_api.h>

#include "kernels/cuda/mlp_launch.cuh"
#include "kernels/cuda/mlp_plan.h"
#include "kernels/cuda/mlp_wgmma.cuh"
#include "swiglu/dtype.h"

namespace swiglu::internal {

// The tiles there are; WgmmaTile of mlp_plan.h chooses among them.
using Wgmma64x16 = WgmmaTileShape<TileRows::kOutputs, 64, 16, 4, 5>;
using Wgmma64x32 = WgmmaTileShape<TileRows::kOutputs, 64, 32, 2, 8>;
using Wgmma64x64 = WgmmaTileShape<TileRows::kOutputs, 64, 64, 2, 6>;
using Wgmma64x128 = WgmmaTileShape<TileRows::kOutputs, 64, 128, 1, 8>;
using Wgmma128x256 = WgmmaTileShape<TileRows::kOutputs, 128, 256, 1, 4>;
using Wgmma176x64 = WgmmaTileShape<TileRows::kTokens, 176, 64, 1, 7>;
using Wgmma224x64 = WgmmaTileShape<TileRows::kTokens, 224, 64, 1, 6>;
using Wgmma128x128 = WgmmaTileShape<TileRows::kTokens, 128, 128, 1, 6>;
using Wgmma176x128 = WgmmaTileShape<TileRows::kTokens, 176, 128, 1, 5>;
using Wgmma192x128 = WgmmaTileShape<TileRows::kTokens, 192, 128, 1, 5>;
using Wgmma224x128 = WgmmaTileShape<TileRows::kTokens, 224, 128, 1, 5>;

template <Dtype kDtype, class Tile>
cudaError_t LaunchTile(const Product& product, const MlpDevice& device, cudaStream_t stream) {
  constexpr WeightsLayout kOutputMajor = WeightsLayout::kOutputMajor;
  constexpr WeightsLayout kDepthMajor = WeightsLayout::kDepthMajor;
  if (product.layout == kOutputMajor) {
    switch (product.finish) {
      case Finish::kStore:
        return LaunchWgmmaTile<kDtype, Tile, kOutputMajor, Finish::kStore>(product, device, stream);
      case Finish::kSwiglu:
        return LaunchWgmmaTile<kDtype, Tile, kOutputMajor, Finish::kSwiglu>(product, device,
                                                                            stream);
      case Finish::kSwigluBackward:
        return LaunchWgmmaTile<kDtype, Tile, kOutputMajor, Finish::kSwigluBackward>(product, device,
                                                                                    stream);
      case Finish::kStoreSum:
        break;
    }
  } else if constexpr (Fits({Tile::kOutputs, Tile::kTokens}, kDepthMajor)) {
    if (product.finish == Finish::kStore) {
      return LaunchWgmmaTile<kDtype, Tile, kDepthMajor, Finish::kStore>(product, device, stream);
    }
    if (product.finish == Finish::kStoreSum) {
      return LaunchWgmmaTile<kDtype, Tile, kDepthMajor, Finish::kStoreSum>(product, device, stream);
    }
  }
  return cudaErrorInvalidConfiguration;
}

template <Dtype kDtype>
cudaError_t LaunchWgmma(const Product& product, const TileSize& tile, const MlpDevice& device,
                        cudaStream_t stream) {
  cudaError_t error = cudaErrorInvalidConfiguration;
  const auto try_tile = [&]<class Tile>(Tile) {
    if (tile != TileSize{Tile::kOutputs, Tile::kTokens}) return false;
    error = LaunchTile<kDtype, Tile>(product, device, stream);
    return true;
  };
  (void)(try_tile(Wgmma64x16{}) || try_tile(Wgmma64x32{}) || try_tile(Wgmma64x64{}) ||
         try_tile(Wgmma64x128{}) || try_tile(Wgmma128x256{}) || try_tile(Wgmma176x64{}) ||
         try_tile(Wgmma224x64{}) || try_tile(Wgmma128x128{}) || try_tile(Wgmma176x128{}) ||
         try_tile(Wgmma192x128{}) || try_tile(Wgmma224x128{}));
  return error;
}

}  // namespace swiglu::internal
