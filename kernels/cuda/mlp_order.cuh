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

// Returns tile number `index`. The tiles of `group` neighbours in outputs come together, all tokens
// of them, one token tile after the other.
__device__ inline TileIndex TileAt(int group, int index, int num_output_tiles,
                                   int num_token_tiles) {
  const int first = index / (group * num_token_tiles) * group;
  const int within = index - first * num_token_tiles;
  const int width = min(group, num_output_tiles - first);
  return {first + within % width, within / width};
}

}  // namespace swiglu::internal
