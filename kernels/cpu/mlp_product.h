// SPDX-License-Identifier: Apache-2.0
//
// The matrix products of a SwiGLU MLP: tokens times packed weights. Private to the kernels.
//
//   out[t][j] = T(sum over k of tokens[t][k] * weights[k][j])
//
// - Panels: the weights of 32 consecutive outputs, [depth][32] 16-bit elements, k by k. The last
//   panel is filled up with zeros. Panels lie one behind the other.
// - Tiles: 12 consecutive tokens as float32, [depth][12], k by k. The last tile has only as many
//   tokens as are left, and as many floats for each k. Tiles lie one behind the other.
//
// Lanes run across outputs, so each output is one float32 accumulator, with k ascending and one
// fused multiply-add for each k. Nothing of this depends on the number of tokens, on the other
// tokens, on the threads or on the instruction set, so the bits do not depend on them either. Only
// the payload of a NaN is unspecified.
//
// Bytes moved: each weight once, and the tiles once for every panel. For every tile, a panel comes
// from the second cache.
#pragma once

#include <cstdint>

#include "swiglu/dtype.h"

namespace swiglu::internal {

inline constexpr int64_t kPanelOutputs = 32;
inline constexpr int64_t kTileTokens = 12;
// A unit of work is one panel times a block of tokens.
inline constexpr int64_t kBlockTokens = 4 * kTileTokens;

constexpr int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The elements of a matrix of weights in panels.
constexpr int64_t PackedElements(int64_t depth, int64_t num_outputs) {
  return CeilDiv(num_outputs, kPanelOutputs) * kPanelOutputs * depth;
}

// Tokens times one matrix.
struct Term {
  const uint16_t* panels = nullptr;
  const float* tiles = nullptr;
};

// One term, or the sum of two: out = T(T(first) + T(second)). Both have the same shape.
struct Product {
  Term first;
  Term second;  // no panels: there is no second term
  int64_t depth = 0;
  int64_t num_outputs = 0;
  int64_t num_tokens = 0;
  uint16_t* out = nullptr;  // [num_tokens][num_outputs]
};

constexpr int64_t NumBlocks(int64_t num_tokens) { return CeilDiv(num_tokens, kBlockTokens); }
constexpr int64_t NumUnits(const Product& product) {
  return CeilDiv(product.num_outputs, kPanelOutputs) * NumBlocks(product.num_tokens);
}

// Computes unit `unit` of `product`: units are numbered panel by panel. `dtype` is FP16 or BF16.
void ComputeUnit(Dtype dtype, const Product& product, int64_t unit);

// Fills tile `tile` of `tiles` from `tokens`, which is [num_tokens][depth], row-major. REQUIRES:
// `depth` is a multiple of 8.
void FillTile(Dtype dtype, const uint16_t* tokens, int64_t num_tokens, int64_t depth, int64_t tile,
              float* tiles);

}  // namespace swiglu::internal
