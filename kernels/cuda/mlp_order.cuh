// SPDX-License-Identifier: Apache-2.0
//
// The order in which thread blocks take the tiles of a product, so that blocks that run at the same
// time share weights and tokens in the L2. Private to the kernels.
#pragma once

namespace swiglu::internal {

// The place of a tile in the grid of tiles.
struct TileIndex {
  int outputs;
  int tokens;
};

// Returns tile number `index`. The tiles of kGroup neighbours in outputs come together, all tokens
// of them, one token tile after the other.
template <int kGroup>
__device__ inline TileIndex TileAt(int index, int num_output_tiles, int num_token_tiles) {
  const int group = index / (kGroup * num_token_tiles);
  const int within = index - group * kGroup * num_token_tiles;
  const int width = min(kGroup, num_output_tiles - group * kGroup);
  return {group * kGroup + within % width, within / width};
}

}  // namespace swiglu::internal
