// SPDX-License-Identifier: Apache-2.0
//
// The arithmetic of SwiGLU on vectors of float32; T is Fp16, Bf16 or Fp32 of narrow_float-inl.h.
// Included once per instruction set, as Highway asks.
//
// The formulas are those of "swiglu/segment.h". 16-bit types follow them step by step. FP32 divides
// by 1 + exp(-e) where they multiply by its reciprocal, since that reciprocal may be subnormal and
// short of bits where the result is not.
#if defined(SWIGLU_KERNELS_CPU_SWIGLU_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SWIGLU_KERNELS_CPU_SWIGLU_INL_H_
#undef SWIGLU_KERNELS_CPU_SWIGLU_INL_H_
#else
#define SWIGLU_KERNELS_CPU_SWIGLU_INL_H_
#endif

#include <cstdint>
#include <limits>
#include <type_traits>

#include "hwy/highway.h"
#include "kernels/cpu/narrow_float-inl.h"

HWY_BEFORE_NAMESPACE();
namespace swiglu::internal {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// 1 + exp(-e), within 2 units in the last place; +infinity where that exceeds float32. For a NaN
// any number at all: every user multiplies or divides by e besides.
template <class D>
HWY_INLINE hn::Vec<D> OnePlusExpOfMinus(D d, hn::Vec<D> e) {
  const hn::RebindToUnsigned<D> du;
  // Beyond these bounds the sum is 1, or overflows.
  const auto x = hn::Min(hn::Max(hn::Neg(e), hn::Set(d, -80.0f)), hn::Set(d, 89.0f));
  // x = k * ln 2 + r, |r| <= ln 2 / 2. Adding 1.5 * 2^23 rounds to an integer k, which then is
  // in the low bits. ln 2 comes in two parts, the first so short that k times it is exact.
  const auto shift = hn::Set(d, 0x1.8p23f);
  const auto shifted = hn::Add(hn::Mul(x, hn::Set(d, 0x1.715476p0f)), shift);
  const auto k = hn::Sub(shifted, shift);
  auto r = hn::NegMulAdd(k, hn::Set(d, 0x1.63p-1f), x);
  r = hn::NegMulAdd(k, hn::Set(d, -0x1.bd0106p-13f), r);
  // exp(r) = 1 + r + r^2 * q(r); q interpolates at the Chebyshev points, relative error 1e-8.
  auto q = hn::MulAdd(r, hn::Set(d, 0.00139263761f), hn::Set(d, 0.00836333353f));
  q = hn::MulAdd(r, q, hn::Set(d, 0.0416665524f));
  q = hn::MulAdd(r, q, hn::Set(d, 0.166665763f));
  q = hn::MulAdd(r, q, hn::Set(d, 0.5f));
  const auto power = hn::Add(hn::Set(d, 1.0f), hn::MulAdd(hn::Mul(r, r), q, r));
  // Times 2^k as 2^(k-1) * 2, since k may be 128.
  const auto exponent = hn::Add(hn::BitCast(du, shifted), hn::Set(du, 126u));
  const auto scale = hn::BitCast(d, hn::ShiftLeft<23>(exponent));
  const auto scaled = hn::Mul(power, scale);
  return hn::Add(hn::Set(d, 1.0f), hn::Add(scaled, scaled));
}

// What forward and backward share.
template <class D>
struct Silu {
  hn::Vec<D> denominator;  // 1 + exp(-e)
  hn::Vec<D> sigmoid;
  hn::Vec<D> f;  // rounded to T
};

template <class T, class D>
HWY_INLINE Silu<D> SiluOf(D d, hn::Vec<D> e) {
  const auto denominator = OnePlusExpOfMinus(d, e);
  const auto sigmoid = hn::Div(hn::Set(d, 1.0f), denominator);
  if constexpr (std::is_same_v<T, Fp32>) {
    return {denominator, sigmoid, hn::Div(e, denominator)};
  } else {
    return {denominator, sigmoid, T::Round(d, hn::Mul(sigmoid, e))};
  }
}

// (dg / denominator) * slope, in an order in which no intermediate loses bits that the result has.
template <class D>
HWY_INLINE hn::Vec<D> QuotientTimes(D d, hn::Vec<D> dg, hn::Vec<D> denominator, hn::Vec<D> slope) {
  // A large dg cannot make the quotient too small, and a small one cannot make the product too
  // large: |slope| < 89 unless the denominator is infinite.
  const auto product_first =
      hn::And(hn::Lt(hn::Abs(dg), hn::Set(d, 0x1p32f)),
              hn::Lt(denominator, hn::Set(d, std::numeric_limits<float>::infinity())));
  const auto one = hn::Set(d, 1.0f);
  const auto before = hn::IfThenElse(product_first, slope, one);
  const auto after = hn::IfThenElse(product_first, one, slope);
  return hn::Mul(hn::Div(hn::Mul(dg, before), denominator), after);
}

// One vector of h. All loads come before the store, so `h` may be `e` or `g`.
template <class T>
HWY_INLINE void ForwardVector(const typename T::Lane* e_lanes, const typename T::Lane* g_lanes,
                              typename T::Lane* h_lanes) {
  const hn::ScalableTag<float> d;
  const hn::Rebind<typename T::Lane, decltype(d)> dt;
  const auto e = T::Widen(d, hn::LoadU(dt, e_lanes));
  const auto g = T::Widen(d, hn::LoadU(dt, g_lanes));
  const auto f = SiluOf<T>(d, e).f;
  hn::StoreU(T::Narrow(d, T::Product(d, f, g)), dt, h_lanes);
}

// One vector each of h, df and de. All loads come before the stores.
template <class T>
HWY_INLINE void BackwardVector(const typename T::Lane* dw_lanes, const typename T::Lane* e_lanes,
                               const typename T::Lane* g_lanes, typename T::Lane* h_lanes,
                               typename T::Lane* df_lanes, typename T::Lane* de_lanes) {
  const hn::ScalableTag<float> d;
  const hn::Rebind<typename T::Lane, decltype(d)> dt;
  const auto dw = T::Widen(d, hn::LoadU(dt, dw_lanes));
  const auto e = T::Widen(d, hn::LoadU(dt, e_lanes));
  const auto g = T::Widen(d, hn::LoadU(dt, g_lanes));

  const auto silu = SiluOf<T>(d, e);
  const auto dg = T::Product(d, dw, g);
  const auto one = hn::Set(d, 1.0f);
  const auto slope = hn::MulAdd(e, hn::Sub(one, silu.sigmoid), one);
  hn::Vec<decltype(d)> de;
  if constexpr (std::is_same_v<T, Fp32>) {
    de = QuotientTimes(d, dg, silu.denominator, slope);
  } else {
    de = hn::Mul(hn::Mul(dg, silu.sigmoid), slope);
  }

  hn::StoreU(T::Narrow(d, T::Product(d, silu.f, g)), dt, h_lanes);
  hn::StoreU(T::Narrow(d, T::Product(d, dw, silu.f)), dt, df_lanes);
  hn::StoreU(T::Narrow(d, de), dt, de_lanes);
}

}  // namespace HWY_NAMESPACE
}  // namespace swiglu::internal
HWY_AFTER_NAMESPACE();

#endif  // include guard per instruction set
