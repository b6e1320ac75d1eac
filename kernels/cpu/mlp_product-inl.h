// SPDX-License-Identifier: Apache-2.0
//
// A tile of tokens times a panel of weights, and the fused multiply-add that this needs. This file
// is included once per instruction set, as Highway requires. "kernels/cpu/mlp_product.h" has the
// layout and the order of the sums.
#if defined(SWIGLU_KERNELS_CPU_MLP_PRODUCT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SWIGLU_KERNELS_CPU_MLP_PRODUCT_INL_H_
#undef SWIGLU_KERNELS_CPU_MLP_PRODUCT_INL_H_
#else
#define SWIGLU_KERNELS_CPU_MLP_PRODUCT_INL_H_
#endif

#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "hwy/cache_control.h"
#include "hwy/highway.h"
#include "kernels/cpu/mlp_product.h"
#include "kernels/cpu/narrow_float-inl.h"

HWY_BEFORE_NAMESPACE();
namespace swiglu::internal {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// At most half a panel, so that two vectors always belong to one panel.
using Outputs = hn::CappedTag<float, 16>;
constexpr int kOutputLanes = static_cast<int>(hn::MaxLanes(Outputs()));

// The accumulators that fit into the registers beside weights and a token: 24 of 32, or 12 of 16.
constexpr int kMaxAccumulators = HWY_TARGET <= HWY_AVX3 || HWY_ARCH_ARM_A64 ? 24 : 12;
// Two vectors for each token: a broadcast token serves two multiply-adds.
constexpr int kMaxRows = kMaxAccumulators / 2;

// How far ahead weights are prefetched: a page of 4 KiB, at whose end the hardware stops. At the
// end of a panel, this reaches into the next panel; past the last one, it does no harm.
constexpr int64_t kRowsAhead = 64;

#if !HWY_NATIVE_FMA
// fma(w, x, sum) for each lane, one after the other.
template <class D>
HWY_NOINLINE hn::Vec<D> FusedOneByOne(D d, hn::Vec<D> w, hn::Vec<D> x, hn::Vec<D> sum) {
  HWY_ALIGN float ws[kOutputLanes], xs[kOutputLanes], sums[kOutputLanes];
  hn::Store(w, d, ws);
  hn::Store(x, d, xs);
  hn::Store(sum, d, sums);
  for (size_t i = 0; i < hn::Lanes(d); ++i) sums[i] = std::fma(ws[i], xs[i], sums[i]);
  return hn::Load(d, sums);
}

// Whether float32 holds each product w * x exactly, for w and x of BF16. The product of the two
// significands has 16 bits, so it is exact unless the product overflows, or has bits below 2^-149,
// the step of float32's subnormals. In the latter case it is less than 2^16 times 2^-150, and so
// float32 rounds it to 2^-134 or less.
template <class D>
HWY_INLINE bool AreExact(D d, hn::Vec<D> w, hn::Vec<D> x, hn::Vec<D> product) {
  const auto zero = hn::Zero(d);
  const auto infinity = hn::Set(d, std::numeric_limits<float>::infinity());
  const auto size = hn::Abs(product);
  const auto is_small =
      hn::And(hn::Le(size, hn::Set(d, 0x1p-134f)), hn::And(hn::Ne(w, zero), hn::Ne(x, zero)));
  const auto is_large = hn::And(
      hn::Eq(size, infinity), hn::And(hn::Lt(hn::Abs(w), infinity), hn::Lt(hn::Abs(x), infinity)));
  return hn::AllFalse(d, hn::Or(is_small, is_large));
}
#endif

// w * x + sum, rounded once, for w and x of type T, on every instruction set. Where there is no
// fused multiply-add: if the product is exact, rounding it changes nothing, so a product and a sum
// give the same bits. The product of two FP16 numbers is always exact.
template <class T, class D>
HWY_INLINE hn::Vec<D> FusedMulAdd(D d, hn::Vec<D> w, hn::Vec<D> x, hn::Vec<D> sum) {
#if HWY_NATIVE_FMA
  (void)d;
  return hn::MulAdd(w, x, sum);
#else
  const auto product = hn::Mul(w, x);
  if constexpr (std::is_same_v<T, Bf16>) {
    if (!AreExact(d, w, x, product)) return FusedOneByOne(d, w, x, sum);
  }
  return hn::Add(product, sum);
#endif
}

// `kRows` tokens times `kVectors` vectors of outputs. `x` has `stride` floats for each k, and
// `sums` has rows of kPanelOutputs.
template <class T, int kRows, int kVectors>
HWY_INLINE void MultiplyVectors(const uint16_t* HWY_RESTRICT w, const float* HWY_RESTRICT x,
                                int64_t stride, int64_t depth, FirstSums first,
                                float* HWY_RESTRICT sums) {
  const Outputs d;
  const HalfTag<Outputs> half;
  hn::Vec<Outputs> sum[kRows][kVectors];
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVectors; ++v) {
      sum[r][v] = first == FirstSums::kZero
                      ? hn::Zero(d)
                      : hn::Load(d, sums + r * kPanelOutputs + v * kOutputLanes);
    }
  }
  for (int64_t k = 0; k < depth; ++k) {
    hwy::Prefetch(w + kRowsAhead * kPanelOutputs);
    hn::Vec<Outputs> wide[kVectors];
    for (int v = 0; v < kVectors; ++v) wide[v] = T::Widen(d, hn::Load(half, w + v * kOutputLanes));
    for (int r = 0; r < kRows; ++r) {
      const auto token = hn::Set(d, x[r]);
      for (int v = 0; v < kVectors; ++v) {
        sum[r][v] = FusedMulAdd<T>(d, wide[v], token, sum[r][v]);
      }
    }
    w += kPanelOutputs;
    x += stride;
  }
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVectors; ++v) {
      hn::Store(sum[r][v], d, sums + r * kPanelOutputs + v * kOutputLanes);
    }
  }
}

// Vectors that `rows` tokens take at a time: few tokens take more, so that there are enough
// accumulators that do not wait for each other.
constexpr int VectorsFor(int rows) {
  int vectors = 2;
  while (2 * vectors * rows <= kMaxAccumulators && vectors * kOutputLanes < kPanelOutputs) {
    vectors *= 2;
  }
  return vectors;
}

// `rows` tokens (at most kRows) times a panel.
template <class T, int kRows>
HWY_INLINE void MultiplyRows(const uint16_t* panel, const float* x, int64_t stride, int rows,
                             int64_t depth, FirstSums first, float* sums) {
  if (rows == kRows) {
    constexpr int kVectors = VectorsFor(kRows);
    for (int64_t j = 0; j < kPanelOutputs; j += kVectors * kOutputLanes) {
      MultiplyVectors<T, kRows, kVectors>(panel + j, x, stride, depth, first, sums + j);
    }
  } else if constexpr (kRows > 1) {
    MultiplyRows<T, kRows - 1>(panel, x, stride, rows, depth, first, sums);
  }
}

// A tile of `num_tokens` tokens times a panel.
template <class T>
void MultiplyTile(const uint16_t* panel, const float* tile, int num_tokens, int64_t depth,
                  FirstSums first_sums, float* sums) {
  for (int first = 0; first < num_tokens; first += kMaxRows) {
    const int rows = num_tokens - first < kMaxRows ? num_tokens - first : kMaxRows;
    MultiplyRows<T, kMaxRows>(panel, tile + first, num_tokens, rows, depth, first_sums,
                              sums + first * kPanelOutputs);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace swiglu::internal
HWY_AFTER_NAMESPACE();

#endif  // include guard per instruction set
