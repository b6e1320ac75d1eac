// SPDX-License-Identifier: Apache-2.0
//
// The matrix products of a SwiGLU MLP: tokens times packed weights, and the sums over tokens that
// are the gradients of the weights. Private to the kernels.
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
//
// A gradient is the same product with the tokens as k, without rounding at its end:
//
//   out[r][j] = sum over t of rows[t][r] * columns[t][j]
//
// Its panels have 32 consecutive columns, and its tiles 12 consecutive rows. Bytes moved: the sums
// once, the tiles once, and the panels once for every block of 48 rows.
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

// What sums begin with: zero, or what their memory has.
enum class FirstSums : uint8_t { kZero, kMemory };

// The gradient of one matrix of weights.
struct Gradient {
  const uint16_t* panels = nullptr;  // columns, as 16-bit elements
  const float* tiles = nullptr;      // rows
  int64_t num_tokens = 0;
  int64_t num_rows = 0;
  int64_t num_columns = 0;
  FirstSums first = FirstSums::kZero;
  float* out = nullptr;  // [num_rows][num_columns]
};

constexpr int64_t NumUnits(const Gradient& gradient) {
  return NumBlocks(gradient.num_rows) * CeilDiv(gradient.num_columns, kPanelOutputs);
}

// Computes unit `unit` of `gradient`: units are numbered block by block, and a unit is one panel
// times a block of rows. `dtype` is FP16 or BF16.
void ComputeGradientUnit(Dtype dtype, const Gradient& gradient, int64_t unit);

// Fills tile `tile` of `tiles` from `tokens`, which is [num_tokens][depth], row-major. REQUIRES:
// `depth` is a multiple of 8.
void FillTile(Dtype dtype, const uint16_t* tokens, int64_t num_tokens, int64_t depth, int64_t tile,
              float* tiles);

// The same for the transpose: fills tile `tile` from rows that are the columns of `matrix`, which
// is [depth][num_rows], row-major. REQUIRES: `num_rows` is a multiple of 4.
void FillTransposedTile(Dtype dtype, const uint16_t* matrix, int64_t depth, int64_t num_rows,
                        int64_t tile, float* tiles);

// Fills panel `panel` of `panels` from `matrix`, which is [depth][num_outputs], row-major.
void FillPanel(const uint16_t* matrix, int64_t depth, int64_t num_outputs, int64_t panel,
               uint16_t* panels);

}  // namespace swiglu::internal
