// SPDX-License-Identifier: Apache-2.0
//
// From an MLP call to its products and their tiles: plain values and pure functions, tested without
// a GPU. Private to the kernels. mlp_cuda.cu makes the products; mlp_mma.cuh and mlp_wgmma.cuh
// compute one each.
//
// A product multiplies tokens by weights. A thread block computes a tile of it: some outputs (rows
// of the weights) for some tokens, over the whole depth. No choice made here changes a bit of the
// result, because each output has one accumulator, and k ascends in steps of 16.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include "swiglu/mlp.h"

namespace swiglu::internal {

// What becomes of the sums of a product. S is a sum, T( ) rounds it.
enum class Finish : int {
  kStore,           // out[0] = T(S)
  kStoreSum,        // of two products: out[0] = T(T(S1) + T(S2))
  kSwiglu,          // 8 outputs of e and 8 of g alternate: out[0] = h
  kSwigluBackward,  // the same, and with dw: out[0] = df, out[1] = de, out[2] = h unless null
};

// How the weights of a product lie in memory.
enum class WeightsLayout : int {
  kOutputMajor,  // [num_outputs][depth]: the depth of one output is contiguous
  kDepthMajor,   // [depth][num_outputs]: the transpose of the above
};

// One product, or two that are added: every element is 16 bits wide.
struct Product {
  const uint16_t* weights;
  const uint16_t* tokens[2];  // [num_tokens][depth]; the second is df Wu + de Wg's de
  uint16_t* out[3];           // [num_tokens][num_outputs], or half as many outputs from e and g
  const uint16_t* dw;         // like out[0]; may be out[1]
  int num_tokens;
  int num_outputs;
  int depth;
  WeightsLayout layout;
  // In kDepthMajor: the rows are those of gate_up. The first product takes the rows of Wu, the
  // second product those of Wg.
  bool is_interleaved;
  Finish finish;
};

// The gradient of a matrix of weights: a product in which the tokens are the depth.
//
//   sums[row][column] = sum over tokens of rows[token][row] * columns[token][column]
struct GradientProduct {
  const uint16_t* rows;     // [num_tokens][num_rows]
  const uint16_t* columns;  // [num_tokens][num_columns]
  float* sums;              // [num_rows][num_columns]
  int num_tokens;
  int num_rows;
  int num_columns;
  MlpSums first;  // what the sums begin with
};

// What the choice of tiles depends on.
struct MlpDevice {
  int compute_capability = 0;  // the major number
  int num_multiprocessors = 0;
};

// ---- Parts ----

// More tokens are computed in parts of at most so many, one after the other. Large parts use the
// GPU as well as one, and the workspace stays small.
inline constexpr int64_t kMaxPartTokens = 8192;

// Returns the tokens of each part but the last, which may have fewer.
inline int64_t PartTokens(int64_t num_tokens) {
  constexpr int64_t kGranularity = 256;  // tokens of the largest tile
  if (num_tokens <= kMaxPartTokens) return num_tokens;
  const int64_t num_parts = (num_tokens + kMaxPartTokens - 1) / kMaxPartTokens;
  const int64_t even = (num_tokens + num_parts - 1) / num_parts;
  return (even + kGranularity - 1) / kGranularity * kGranularity;
}

// ---- Tiles ----

// Outputs and tokens of a tile.
struct TileSize {
  int outputs;
  int tokens;

  bool operator==(const TileSize&) const = default;
};

inline int64_t NumTiles(const TileSize& tile, int64_t num_outputs, int64_t num_tokens) {
  return ((num_outputs + tile.outputs - 1) / tile.outputs) *
         ((num_tokens + tile.tokens - 1) / tile.tokens);
}

// Returns whether a device has the wgmma path.
inline bool HasWgmma(const MlpDevice& device) { return device.compute_capability == 9; }

// Which operand of wgmma has 64 rows for each warpgroup that computes a tile.
enum class TileRows : int { kOutputs, kTokens };

// A tile of the wgmma path. Its costs are nanoseconds per 64 of depth on one multiprocessor of an
// H200, measured while the GPU was at its power limit.
struct WgmmaTileCost {
  TileSize size;
  int cost;
  int cost_backward;  // of Finish::kSwigluBackward, if there is such a kernel
  int cost_sparse;    // if at most every second multiprocessor has one: more bandwidth for each
};

inline constexpr WgmmaTileCost kWgmmaTiles[] = {
    // The tokens are the columns of wgmma.
    {{64, 16}, 150, 150, 110},
    {{64, 32}, 185, 185, 135},
    {{64, 64}, 205, 205, 150},
    {{64, 128}, 260, 390, 200},
    {{128, 256}, 755, 0, 755},
    // The tokens are the rows.
    {{176, 64}, 435, 440, 435},
    {{224, 64}, 550, 555, 550},
    {{128, 128}, 385, 415, 385},
    {{176, 128}, 525, 575, 525},
    {{192, 128}, 570, 620, 570},
    {{224, 128}, 670, 735, 670},
};

// Returns whether the wgmma path computes such products in tiles of this size. Copies of
// depth-major weights come in boxes of 64 outputs. In Finish::kSwigluBackward, two tiles of 128 x
// 128 are always done before one of 128 x 256.
constexpr bool HasKernel(const TileSize& tile, WeightsLayout layout, Finish finish) {
  if (layout == WeightsLayout::kDepthMajor) return tile.outputs % 64 == 0;
  return finish != Finish::kSwigluBackward || tile != TileSize{128, 256};
}

// Returns the tile of the wgmma path that is done first, if every multiprocessor computes one tile
// after the other.
inline TileSize WgmmaTile(const Product& product, const MlpDevice& device) {
  TileSize best{};
  int64_t least = std::numeric_limits<int64_t>::max();
  for (const WgmmaTileCost& tile : kWgmmaTiles) {
    if (!HasKernel(tile.size, product.layout, product.finish)) continue;
    const int64_t num_tiles = NumTiles(tile.size, product.num_outputs, product.num_tokens);
    const int64_t num_rounds =
        (num_tiles + device.num_multiprocessors - 1) / device.num_multiprocessors;
    int cost = tile.cost;
    if (product.finish == Finish::kSwigluBackward) {
      cost = tile.cost_backward;
    } else if (2 * num_tiles <= device.num_multiprocessors) {
      cost = tile.cost_sparse;
    }
    if (num_rounds * cost < least) {
      least = num_rounds * cost;
      best = tile.size;
    }
  }
  return best;
}

// Returns the tile of the mma.sync path. Few tokens: the weights' bytes are the limit, and tiles
// are low enough to busy all multiprocessors. Many tokens: arithmetic is the limit, and large tiles
// read less.
inline TileSize MmaTile(const Product& product, const MlpDevice& device) {
  const auto fills = [&](const TileSize& tile) {
    return NumTiles(tile, product.num_outputs, product.num_tokens) >= device.num_multiprocessors;
  };
  if (product.layout == WeightsLayout::kDepthMajor) {
    if (product.num_tokens <= 16) return {64, 16};
    return fills({128, 128}) ? TileSize{128, 128} : TileSize{64, 64};
  }
  if (product.num_tokens <= 16) return fills({64, 16}) ? TileSize{64, 16} : TileSize{32, 16};
  if (product.num_tokens > 64 && fills({128, 128})) return {128, 128};
  return fills({128, 64}) ? TileSize{128, 64} : TileSize{32, 64};
}

}  // namespace swiglu::internal
