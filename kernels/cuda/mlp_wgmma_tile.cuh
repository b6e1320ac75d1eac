// SPDX-License-Identifier: Apache-2.0
//
// The tiles of the wgmma path: their shapes, the order in which a block computes them, and where
// their stages lie in shared memory. Private to the kernels; mlp_wgmma.cuh says how they are used.
#pragma once

#include <cuda.h>

#include <algorithm>
#include <cstdint>

#include "kernels/cuda/mlp_order.cuh"
#include "kernels/cuda/mlp_plan.h"

namespace swiglu::internal {

// The depth of a panel: 128 bytes of 16-bit elements, the widest row that TMA swizzles.
inline constexpr int kPanelDepth = 64;

// A tile of kOutputs by kTokens. Each of kConsumers warpgroups computes 64 of its rows, which are
// outputs or tokens; the others are the columns. A stage is kPanels panels deep: for small tiles
// several, so that what each stage costs is spread over more bytes.
template <TileRows kRows_, int kOutputs_, int kTokens_, int kPanels_, int kStages_>
struct WgmmaTileShape {
  static constexpr TileRows kRows = kRows_;
  static constexpr bool kTokensAreRows = kRows == TileRows::kTokens;
  static constexpr int kOutputs = kOutputs_, kTokens = kTokens_;
  static constexpr int kColumns = kTokensAreRows ? kOutputs : kTokens;
  static constexpr int kConsumers = (kTokensAreRows ? kTokens : kOutputs) / 64;
  static constexpr int kThreads = (kConsumers + 1) * 128;
  static constexpr int kPanels = kPanels_, kStages = kStages_;
  static constexpr int kDepth = kPanels * kPanelDepth;
  static constexpr int kWeightsPanelBytes = kOutputs * kPanelDepth * 2;
  static constexpr int kTokensPanelBytes = kTokens * kPanelDepth * 2;
  static constexpr int kWeightsBytes = kPanels * kWeightsPanelBytes;
  static constexpr int kStageBytes = kWeightsBytes + kPanels * kTokensPanelBytes;
  static constexpr int kAlignment = 1024;  // of each panel, for the swizzle
  static constexpr int kSharedBytes = kAlignment + kStages * kStageBytes + 2 * kStages * 8;
  // The products of large tiles hide the end of the tile before.
  static constexpr bool kFinishesLater = kColumns >= 128;
  // Whether the consumers need more registers than the producer can have.
  static constexpr bool kMovesRegisters = kConsumers > 1 && kColumns > 128;
  static_assert((kTokensAreRows ? kTokens : kOutputs) % 64 == 0);
  static_assert(kWeightsPanelBytes % kAlignment == 0 && kTokensPanelBytes % kAlignment == 0);
  static_assert(kSharedBytes <= 227 << 10);
};

// What a kernel gets.
struct WgmmaArguments {
  CUtensorMap weights;
  CUtensorMap tokens[2];
  int box_tokens;  // of the boxes of tokens
  Product product;
};

// The tiles that a block computes, and within them the stages to fill, in order.
template <class Tile>
class WgmmaSchedule {
 public:
  __device__ explicit WgmmaSchedule(const Product& product)
      : num_output_tiles_((product.num_outputs + Tile::kOutputs - 1) / Tile::kOutputs),
        num_token_tiles_((product.num_tokens + Tile::kTokens - 1) / Tile::kTokens),
        index_(static_cast<int>(blockIdx.x)) {}

  __device__ bool has_tile() const { return index_ < num_output_tiles_ * num_token_tiles_; }
  __device__ bool has_next_tile() const {
    return index_ + static_cast<int>(gridDim.x) < num_output_tiles_ * num_token_tiles_;
  }
  __device__ void GoToNextTile() { index_ += static_cast<int>(gridDim.x); }

  // The first output and token of the tile.
  __device__ TileIndex First() const {
    const TileIndex at = TileAt(kGroup, index_, num_output_tiles_, num_token_tiles_);
    return {at.outputs * Tile::kOutputs, at.tokens * Tile::kTokens};
  }

 private:
  // Output tiles that come together. More of them would leave less of the L2 for the tokens.
  static constexpr int kGroup = std::min(32, 4096 / Tile::kOutputs);

  const int num_output_tiles_, num_token_tiles_;
  int index_;
};

// A stage of the ring, and the parity of its barriers' phases.
template <int kStages>
struct RingPosition {
  int stage = 0;
  uint32_t parity = 0;

  __device__ void Advance() {
    if (++stage == kStages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

// Addresses in shared memory.
template <class Tile>
struct WgmmaShared {
  uint32_t ring;
  __device__ uint32_t weights(int stage) const { return ring + stage * Tile::kStageBytes; }
  __device__ uint32_t tokens(int stage) const { return weights(stage) + Tile::kWeightsBytes; }
  __device__ uint32_t filled(int stage) const {
    return ring + Tile::kStages * Tile::kStageBytes + stage * 8;
  }
  __device__ uint32_t emptied(int stage) const { return filled(stage) + Tile::kStages * 8; }
};

}  // namespace swiglu::internal
