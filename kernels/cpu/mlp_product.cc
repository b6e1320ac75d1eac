// SPDX-License-Identifier: Apache-2.0
//
// The matrix products of an MLP. Everything between HWY_BEFORE_NAMESPACE and HWY_AFTER_NAMESPACE is
// compiled once per instruction set; the part below picks the best one that the machine has.
#include "kernels/cpu/mlp_product.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/mlp_product.cc"
#include "hwy/foreach_target.h"
// The order matters: what follows is per instruction set.
#include <algorithm>
#include <cstdint>
#include <cstring>

#include "hwy/highway.h"
#include "kernels/cpu/mlp_product-inl.h"
#include "kernels/cpu/narrow_float-inl.h"

HWY_BEFORE_NAMESPACE();
namespace swiglu::internal {
namespace HWY_NAMESPACE {

// The part of a product that is one unit.
struct UnitPart {
  int64_t panel, first_token, num_tokens;
};

UnitPart PartOf(const Product& product, int64_t unit) {
  const int64_t num_blocks = NumBlocks(product.num_tokens);
  const int64_t first_token = unit % num_blocks * kBlockTokens;
  return {unit / num_blocks, first_token, std::min(kBlockTokens, product.num_tokens - first_token)};
}

// The sums of a term: a row of kPanelOutputs for each token.
template <class T>
void MultiplyPart(const Term& term, int64_t depth, const UnitPart& part, float* sums) {
  const uint16_t* const panel = term.panels + part.panel * depth * kPanelOutputs;
  for (int64_t t = 0; t < part.num_tokens; t += kTileTokens) {
    const auto tokens = static_cast<int>(std::min(kTileTokens, part.num_tokens - t));
    MultiplyTile<T>(panel, term.tiles + (part.first_token + t) * depth, tokens, depth,
                    FirstSums::kZero, sums + t * kPanelOutputs);
  }
}

// Rounds a row of sums. With a second row: rounds both, and rounds the sum of the two.
template <class T>
HWY_INLINE void RoundRow(const float* sums, const float* second, uint16_t* row) {
  const Outputs d;
  for (int64_t j = 0; j < kPanelOutputs; j += kOutputLanes) {
    auto sum = hn::Load(d, sums + j);
    if (second != nullptr) sum = hn::Add(T::Round(d, sum), T::Round(d, hn::Load(d, second + j)));
    hn::Store(T::Narrow(d, sum), HalfTag<Outputs>(), row + j);
  }
}

template <class T>
void ComputeUnitOf(const Product& product, int64_t unit) {
  const UnitPart part = PartOf(product, unit);
  const bool has_second = product.second.panels != nullptr;
  HWY_ALIGN float sums[kBlockTokens * kPanelOutputs];
  HWY_ALIGN float second[kBlockTokens * kPanelOutputs];
  MultiplyPart<T>(product.first, product.depth, part, sums);
  if (has_second) MultiplyPart<T>(product.second, product.depth, part, second);

  // The last panel may have outputs that there are not.
  const int64_t first_output = part.panel * kPanelOutputs;
  const int64_t num_outputs = std::min(kPanelOutputs, product.num_outputs - first_output);
  uint16_t* out = product.out + part.first_token * product.num_outputs + first_output;
  for (int64_t t = 0; t < part.num_tokens; ++t, out += product.num_outputs) {
    const int64_t at = t * kPanelOutputs;
    HWY_ALIGN uint16_t row[kPanelOutputs];
    RoundRow<T>(sums + at, has_second ? second + at : nullptr, row);
    std::memcpy(out, row, static_cast<size_t>(num_outputs) * sizeof(uint16_t));
  }
}

// Tile by tile, by way of sums that lie as MultiplyTile wants them. The last panel may have columns
// that there are not; their sums are not used.
template <class T>
void ComputeGradientUnitOf(const Gradient& gradient, int64_t unit) {
  const int64_t num_panels = CeilDiv(gradient.num_columns, kPanelOutputs);
  const int64_t first_row = unit / num_panels * kBlockTokens, panel = unit % num_panels;
  const int64_t end_row = std::min(first_row + kBlockTokens, gradient.num_rows);
  const int64_t first_column = panel * kPanelOutputs;
  const int64_t num_columns = std::min(kPanelOutputs, gradient.num_columns - first_column);
  const size_t row_bytes = static_cast<size_t>(num_columns) * sizeof(float);
  const uint16_t* const columns = gradient.panels + first_column * gradient.num_tokens;
  HWY_ALIGN float sums[kTileTokens * kPanelOutputs] = {};
  for (int64_t row = first_row; row < end_row; row += kTileTokens) {
    const int64_t num_rows = std::min(kTileTokens, end_row - row);
    float* const out = gradient.out + row * gradient.num_columns + first_column;
    if (gradient.first == FirstSums::kMemory) {
      for (int64_t r = 0; r < num_rows; ++r) {
        std::memcpy(sums + r * kPanelOutputs, out + r * gradient.num_columns, row_bytes);
      }
    }
    MultiplyTile<T>(columns, gradient.tiles + row * gradient.num_tokens, static_cast<int>(num_rows),
                    gradient.num_tokens, gradient.first, sums);
    for (int64_t r = 0; r < num_rows; ++r) {
      std::memcpy(out + r * gradient.num_columns, sums + r * kPanelOutputs, row_bytes);
    }
  }
}

// Widens eight elements of each token at a time, then moves them to their places.
template <class T>
void FillTileOf(const uint16_t* tokens, int64_t num_tokens, int64_t depth, int64_t tile,
                float* tiles) {
  constexpr int64_t kStep = 8;
  const hn::CappedTag<float, kStep> d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const int64_t first_token = tile * kTileTokens;
  const int64_t num_rows = std::min(kTileTokens, num_tokens - first_token);
  float* out = tiles + first_token * depth;
  for (int64_t k = 0; k < depth; k += kStep, out += kStep * num_rows) {
    for (int64_t r = 0; r < num_rows; ++r) {
      const uint16_t* const in = tokens + (first_token + r) * depth + k;
      HWY_ALIGN float wide[kStep];
      for (int64_t i = 0; i < kStep; i += lanes) {
        hn::StoreU(T::Widen(d, hn::LoadU(HalfTag<decltype(d)>(), in + i)), d, wide + i);
      }
      for (int64_t i = 0; i < kStep; ++i) out[i * num_rows + r] = wide[i];
    }
  }
}

// Each k of a tile is consecutive in the matrix.
template <class T>
void FillTransposedTileOf(const uint16_t* matrix, int64_t depth, int64_t num_rows, int64_t tile,
                          float* tiles) {
  constexpr int64_t kStep = 4;
  const hn::CappedTag<float, kStep> d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const int64_t first_row = tile * kTileTokens;
  const int64_t width = std::min(kTileTokens, num_rows - first_row);
  float* out = tiles + first_row * depth;
  const uint16_t* in = matrix + first_row;
  for (int64_t k = 0; k < depth; ++k, in += num_rows, out += width) {
    for (int64_t r = 0; r < width; r += lanes) {
      hn::StoreU(T::Widen(d, hn::LoadU(HalfTag<decltype(d)>(), in + r)), d, out + r);
    }
  }
}

void ComputeProductUnit(Dtype dtype, const Product& product, int64_t unit) {
  dtype == Dtype::kFp16 ? ComputeUnitOf<Fp16>(product, unit) : ComputeUnitOf<Bf16>(product, unit);
}

void FillOneTile(Dtype dtype, const uint16_t* tokens, int64_t num_tokens, int64_t depth,
                 int64_t tile, float* tiles) {
  dtype == Dtype::kFp16 ? FillTileOf<Fp16>(tokens, num_tokens, depth, tile, tiles)
                        : FillTileOf<Bf16>(tokens, num_tokens, depth, tile, tiles);
}

void ComputeOneGradientUnit(Dtype dtype, const Gradient& gradient, int64_t unit) {
  dtype == Dtype::kFp16 ? ComputeGradientUnitOf<Fp16>(gradient, unit)
                        : ComputeGradientUnitOf<Bf16>(gradient, unit);
}

void FillOneTransposedTile(Dtype dtype, const uint16_t* matrix, int64_t depth, int64_t num_rows,
                           int64_t tile, float* tiles) {
  dtype == Dtype::kFp16 ? FillTransposedTileOf<Fp16>(matrix, depth, num_rows, tile, tiles)
                        : FillTransposedTileOf<Bf16>(matrix, depth, num_rows, tile, tiles);
}

}  // namespace HWY_NAMESPACE
}  // namespace swiglu::internal
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace swiglu::internal {
namespace {

HWY_EXPORT(ComputeProductUnit);
HWY_EXPORT(FillOneTile);
HWY_EXPORT(ComputeOneGradientUnit);
HWY_EXPORT(FillOneTransposedTile);

}  // namespace

void ComputeUnit(Dtype dtype, const Product& product, int64_t unit) {
  HWY_DYNAMIC_DISPATCH(ComputeProductUnit)(dtype, product, unit);
}

void FillTile(Dtype dtype, const uint16_t* tokens, int64_t num_tokens, int64_t depth, int64_t tile,
              float* tiles) {
  HWY_DYNAMIC_DISPATCH(FillOneTile)(dtype, tokens, num_tokens, depth, tile, tiles);
}

void ComputeGradientUnit(Dtype dtype, const Gradient& gradient, int64_t unit) {
  HWY_DYNAMIC_DISPATCH(ComputeOneGradientUnit)(dtype, gradient, unit);
}

void FillTransposedTile(Dtype dtype, const uint16_t* matrix, int64_t depth, int64_t num_rows,
                        int64_t tile, float* tiles) {
  HWY_DYNAMIC_DISPATCH(FillOneTransposedTile)(dtype, matrix, depth, num_rows, tile, tiles);
}

void FillPanel(const uint16_t* matrix, int64_t depth, int64_t num_outputs, int64_t panel,
               uint16_t* panels) {
  const int64_t first = panel * kPanelOutputs;
  const int64_t width = std::min(kPanelOutputs, num_outputs - first);
  const uint16_t* in = matrix + first;
  uint16_t* out = panels + first * depth;
  for (int64_t k = 0; k < depth; ++k, in += num_outputs, out += kPanelOutputs) {
    std::copy_n(in, width, out);
    std::fill(out + width, out + kPanelOutputs, uint16_t{0});
  }
}

}  // namespace swiglu::internal
#endif  // HWY_ONCE
