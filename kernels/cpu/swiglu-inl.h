// SPDX-License-Identifier: Apache-2.0
//
// The arithmetic of SwiGLU on vectors of float32; T is Fp16, Bf16 or Fp32 of narrow_float-inl.h.
// This file is included once per instruction set, as Highway requires.
//
// The formulas are those of "swiglu/segment.h", rewritten in three ways to keep accuracy:
// - The code computes with e / 2 and with 2 * sigmoid = 1 / s, where s is (1 + exp(-e)) / 2. For
//   every e for which the sigmoid is not 0, s is finite.
// - de is dg * (se * slope), not (dg * se) * slope, because dg * se may be subnormal. The slope is
//   1 + e * (1 - se). |se * slope| is below 1.1. It is more than 2^-122 or exactly 0, except near
//   the zero of the slope.
// - For FP32, the code adds a multiple of ln 2 to e, so that the result is near 0. It writes ln 2
//   as the sum of two constants. The 16-bit types need only one constant, the base-2 logarithm of
//   Euler's number.
#if defined(SWIGLU_KERNELS_CPU_SWIGLU_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SWIGLU_KERNELS_CPU_SWIGLU_INL_H_
#undef SWIGLU_KERNELS_CPU_SWIGLU_INL_H_
#else
#define SWIGLU_KERNELS_CPU_SWIGLU_INL_H_
#endif

#include <cstddef>
#include <type_traits>

#include "hwy/highway.h"
#include "kernels/cpu/narrow_float-inl.h"

HWY_BEFORE_NAMESPACE();
namespace swiglu::internal {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// The greatest float32 e for which 1 + exp(-e) overflows float32.
constexpr float kOverflowingGate = -0x1.62e43p6f;  // -88.7228394

// (1 + exp(-e)) / 2. For FP32 the result is within 2 units in the last place. Otherwise its
// relative error is at most 2^-18. The result is unspecified if e is at most kOverflowingGate or a
// NaN.
template <class T, class D>
HWY_INLINE hn::Vec<D> HalfOfOnePlusExpOfMinus(D d, hn::Vec<D> e) {
  const hn::RebindToUnsigned<D> du;
  const auto minus_log2_e = hn::Set(d, -0x1.715476p0f);
  const auto half = hn::Set(d, 0.5f);
  // For e above 80, 1 + exp(-e) is 1 in float32.
  const auto x = hn::Min(e, hn::Set(d, 80.0f));
  // exp(-x) = 2^k * exp(-x - k * ln 2), with k the integer nearest to -x * log2(e). Adding 1.5 *
  // 2^23 rounds to an integer, which is then in the low bits. Adding 126 more makes these bits the
  // biased exponent of 2^(k-1).
  const auto shift = hn::Set(d, 0x1.8p23f + 126.0f);
  const auto shifted = hn::MulAdd(x, minus_log2_e, shift);
  const auto k = hn::Sub(shifted, shift);
  const auto scale = hn::BitCast(d, hn::ShiftLeft<23>(hn::BitCast(du, shifted)));
  // The polynomials are minimax polynomials. Each is cut into two parts that do not wait for each
  // other: `start` is 1/2 + scale * (the first two terms), and `rest` is the other terms divided by
  // r^2.
  hn::Vec<D> r, start, rest;
  if constexpr (std::is_same_v<T, Fp32>) {
    // r = x + k * ln 2, |r| <= ln 2 / 2, and exp(-r) with a relative error of 2^-28. The first part
    // of ln 2 is so short that k times it is exact.
    r = hn::MulAdd(k, hn::Set(d, 0x1.63p-1f), x);
    r = hn::MulAdd(k, hn::Set(d, -0x1.bd0106p-13f), r);
    start = hn::NegMulAdd(r, scale, hn::Add(scale, half));
    rest = hn::MulAdd(r, hn::Set(d, 0.00138163706f), hn::Set(d, -0.0083683664f));
    rest = hn::MulAdd(r, rest, hn::Set(d, 0.0416683219f));
    rest = hn::MulAdd(hn::Mul(r, r), rest,
                      hn::MulAdd(r, hn::Set(d, -0.166665241f), hn::Set(d, 0.49999994f)));
  } else {
    // r = -x * log2(e) - k, |r| <= 1 / 2, and 2^r with a relative error of 2^-23.
    r = hn::MulSub(x, minus_log2_e, k);
    start = hn::MulAdd(hn::MulAdd(r, hn::Set(d, 0.693147004f), hn::Set(d, 1.0f)), scale, half);
    rest = hn::MulAdd(r, hn::Set(d, 0.00132658344f), hn::Set(d, 0.00967085361f));
    rest = hn::MulAdd(hn::Mul(r, r), rest,
                      hn::MulAdd(r, hn::Set(d, 0.0555072166f), hn::Set(d, 0.240222558f)));
  }
  return hn::MulAdd(hn::Mul(hn::Mul(r, r), scale), rest, start);
}

// 1 / x for x from 2^-1 to 2^127, within 1 unit in the last place and exact where x is 2^-1. The
// result is unspecified for other x.
template <class D>
HWY_INLINE hn::Vec<D> Reciprocal(D d, hn::Vec<D> x) {
  const auto one = hn::Set(d, 1.0f);
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3
  // AVX-512 gives an estimate with 14 correct bits, even if the reciprocal is subnormal. One Newton
  // step doubles the number of correct bits. A division of the whole vector would take as long as
  // all the rest of forward.
  const auto y = hn::ApproximateReciprocal(x);
  return hn::MulAdd(hn::NegMulAdd(x, y, one), y, y);
#else
  return hn::Div(one, x);
#endif
}

// The values that both forward and backward need.
template <class D>
struct Silu {
  hn::Vec<D> half_e;
  hn::Vec<D> twice_sigmoid;
  hn::Vec<D> f;  // rounded to T
};

template <class T, class D>
HWY_INLINE Silu<D> SiluOf(D d, hn::Vec<D> e) {
  const auto half_sum = HalfOfOnePlusExpOfMinus<T>(d, e);
  const auto is_in_range = hn::Gt(e, hn::Set(d, kOverflowingGate));
  const auto twice_sigmoid = hn::IfThenElseZero(is_in_range, Reciprocal(d, half_sum));
  const auto half_e = hn::Mul(e, hn::Set(d, 0.5f));
  return {half_e, twice_sigmoid, T::RoundResult(d, hn::Mul(half_e, twice_sigmoid))};
}

// One vector of h, not yet rounded to T.
template <class T, class D>
HWY_INLINE hn::Vec<D> ForwardOf(D d, hn::Vec<D> e, hn::Vec<D> g) {
  return hn::Mul(SiluOf<T>(d, e).f, g);
}

// One vector of each output of backward, not yet rounded to T.
template <class D>
struct Gradients {
  hn::Vec<D> h, df, de;
};

template <class T, class D>
HWY_INLINE Gradients<D> BackwardOf(D d, hn::Vec<D> dw, hn::Vec<D> e, hn::Vec<D> g) {
  const auto half = hn::Set(d, 0.5f);
  const auto silu = SiluOf<T>(d, e);
  const auto dg = T::Product(d, dw, g);
  const auto rest = hn::NegMulAdd(half, silu.twice_sigmoid, hn::Set(d, 1.0f));
  const auto half_slope = hn::MulAdd(silu.half_e, rest, half);
  const auto derivative = hn::Mul(half_slope, silu.twice_sigmoid);
  return {hn::Mul(silu.f, g), hn::Mul(dw, silu.f), hn::Mul(dg, derivative)};
}

// Two vectors of h. All loads come before the stores, so `h` may be `e` or `g`.
template <class T>
HWY_INLINE void ForwardPair(const typename T::Lane* e_lanes, const typename T::Lane* g_lanes,
                            typename T::Lane* h_lanes) {
  const hn::ScalableTag<float> d;
  const auto e = T::Load(d, e_lanes);
  const auto g = T::Load(d, g_lanes);
  T::Store(d, {ForwardOf<T>(d, e.first, g.first), ForwardOf<T>(d, e.second, g.second)}, h_lanes);
}

// Two vectors each of h, df and de. All loads come before the stores.
template <class T>
HWY_INLINE void BackwardPair(const typename T::Lane* dw_lanes, const typename T::Lane* e_lanes,
                             const typename T::Lane* g_lanes, typename T::Lane* h_lanes,
                             typename T::Lane* df_lanes, typename T::Lane* de_lanes) {
  const hn::ScalableTag<float> d;
  const auto dw = T::Load(d, dw_lanes);
  const auto e = T::Load(d, e_lanes);
  const auto g = T::Load(d, g_lanes);
  const auto first = BackwardOf<T>(d, dw.first, e.first, g.first);
  const auto second = BackwardOf<T>(d, dw.second, e.second, g.second);
  T::Store(d, {first.h, second.h}, h_lanes);
  T::Store(d, {first.df, second.df}, df_lanes);
  T::Store(d, {first.de, second.de}, de_lanes);
}

}  // namespace HWY_NAMESPACE
}  // namespace swiglu::internal
HWY_AFTER_NAMESPACE();

#endif  // include guard per instruction set
