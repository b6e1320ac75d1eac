// SPDX-License-Identifier: Apache-2.0
//
// Launches the products of the wgmma path: one kernel for each tile and end of a product. Private
// to the kernels. mlp_wgmma_fp16.cu and mlp_wgmma_bf16.cu compile it, side by side, for sm_90a
// only.
#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <iterator>

#include "kernels/cuda/mlp_launch.cuh"
#include "kernels/cuda/mlp_plan.h"
#include "kernels/cuda/mlp_wgmma.cuh"
#include "swiglu/dtype.h"

namespace swiglu::internal {

template <class... Tiles>
struct TileList {};

// The tiles of mlp_plan.h, each with its rows and its stages.
using WgmmaTiles = TileList<WgmmaTileShape<TileRows::kOutputs, 64, 16, 4, 5>,    //
                            WgmmaTileShape<TileRows::kOutputs, 64, 32, 2, 8>,    //
                            WgmmaTileShape<TileRows::kOutputs, 64, 64, 2, 6>,    //
                            WgmmaTileShape<TileRows::kOutputs, 64, 128, 1, 8>,   //
                            WgmmaTileShape<TileRows::kOutputs, 128, 256, 1, 4>,  //
                            WgmmaTileShape<TileRows::kTokens, 176, 64, 1, 7>,    //
                            WgmmaTileShape<TileRows::kTokens, 224, 64, 1, 6>,    //
                            WgmmaTileShape<TileRows::kTokens, 128, 128, 1, 6>,   //
                            WgmmaTileShape<TileRows::kTokens, 176, 128, 1, 5>,   //
                            WgmmaTileShape<TileRows::kTokens, 192, 128, 1, 5>,   //
                            WgmmaTileShape<TileRows::kTokens, 224, 128, 1, 5>>;

template <Dtype kDtype, class Tile, WeightsLayout kLayout, Finish kFinish>
cudaError_t LaunchIfThere(const Product& product, const MlpDevice& device, cudaStream_t stream) {
  if constexpr (HasKernel({Tile::kOutputs, Tile::kTokens}, kLayout, kFinish)) {
    return LaunchWgmmaTile<kDtype, Tile, kLayout, kFinish>(product, device, stream);
  } else {
    return cudaErrorInvalidConfiguration;
  }
}

template <Dtype kDtype, class Tile>
cudaError_t LaunchTile(const Product& product, const MlpDevice& device, cudaStream_t stream) {
  constexpr WeightsLayout kOutputMajor = WeightsLayout::kOutputMajor;
  constexpr WeightsLayout kDepthMajor = WeightsLayout::kDepthMajor;
  if (product.layout == kOutputMajor) {
    switch (product.finish) {
      case Finish::kStore:
        return LaunchIfThere<kDtype, Tile, kOutputMajor, Finish::kStore>(product, device, stream);
      case Finish::kSwiglu:
        return LaunchIfThere<kDtype, Tile, kOutputMajor, Finish::kSwiglu>(product, device, stream);
      case Finish::kSwigluBackward:
        return LaunchIfThere<kDtype, Tile, kOutputMajor, Finish::kSwigluBackward>(product, device,
                                                                                  stream);
      case Finish::kStoreSum:
        break;
    }
  } else {
    if (product.finish == Finish::kStore) {
      return LaunchIfThere<kDtype, Tile, kDepthMajor, Finish::kStore>(product, device, stream);
    }
    if (product.finish == Finish::kStoreSum) {
      return LaunchIfThere<kDtype, Tile, kDepthMajor, Finish::kStoreSum>(product, device, stream);
    }
  }
  return cudaErrorInvalidConfiguration;
}

constexpr bool IsPlanned(const TileSize& size) {
  return std::any_of(std::begin(kWgmmaTiles), std::end(kWgmmaTiles),
                     [&](const WgmmaTileCost& tile) { return tile.size == size; });
}

// Launches the tile of this size among `Tiles`.
template <Dtype kDtype, class... Tiles>
cudaError_t LaunchOneOf(TileList<Tiles...>, const Product& product, const TileSize& tile,
                        const MlpDevice& device, cudaStream_t stream) {
  static_assert(sizeof...(Tiles) == std::size(kWgmmaTiles));
  static_assert((IsPlanned({Tiles::kOutputs, Tiles::kTokens}) && ...));
  cudaError_t error = cudaErrorInvalidConfiguration;
  const auto try_tile = [&]<class Tile>() {
    if (tile != TileSize{Tile::kOutputs, Tile::kTokens}) return false;
    error = LaunchTile<kDtype, Tile>(product, device, stream);
    return true;
  };
  (void)(try_tile.template operator()<Tiles>() || ...);
  return error;
}

template <Dtype kDtype>
cudaError_t LaunchWgmma(const Product& product, const TileSize& tile, const MlpDevice& device,
                        cudaStream_t stream) {
  return LaunchOneOf<kDtype>(WgmmaTiles{}, product, tile, device, stream);
}

}  // namespace swiglu::internal
