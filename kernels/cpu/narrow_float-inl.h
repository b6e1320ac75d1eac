// SPDX-License-Identifier: Apache-2.0
//
// The element types FP16, BF16 and FP32 as vectors of float32: loading, widening, rounding to
// nearest even, narrowing, storing, and products rounded once. This file is included once per
// instruction set, as Highway requires.
//
// Highway has conversions of its own, but its release 1.0.3 truncates to BF16 and mishandles FP16
// infinities and NaNs below AVX2. The conversions here are exact on every instruction set: they
// keep subnormals, signed zeros and infinities, and a NaN becomes a quiet NaN.
#if defined(SWIGLU_KERNELS_CPU_NARROW_FLOAT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SWIGLU_KERNELS_CPU_NARROW_FLOAT_INL_H_
#undef SWIGLU_KERNELS_CPU_NARROW_FLOAT_INL_H_
#else
#define SWIGLU_KERNELS_CPU_NARROW_FLOAT_INL_H_
#endif

#include <cstdint>

#include "hwy/highway.h"

// Whether the instruction set has the F16C conversions.
#undef SWIGLU_HAS_F16C
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX2 && !defined(HWY_DISABLE_F16C)
#define SWIGLU_HAS_F16C 1
#else
#define SWIGLU_HAS_F16C 0
#endif

HWY_BEFORE_NAMESPACE();
namespace swiglu::internal {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// The tag of a vector that has as many lanes as `D`, with 16 bits each.
template <class D>
using HalfTag = hn::Rebind<uint16_t, D>;

// Returns the low 16 bits of each lane. The upper 16 bits must be zero.
template <class D>
HWY_INLINE hn::Vec<HalfTag<D>> LowHalves(D, hn::Vec<hn::RebindToUnsigned<D>> bits) {
  const hn::RebindToSigned<D> di;
  return hn::DemoteTo(HalfTag<D>(), hn::BitCast(di, bits));
}

// Two vectors of float32 that together hold consecutive elements. Load and Store of the element
// type define the order of the elements.
template <class D>
struct Pair {
  hn::Vec<D> first, second;
};

// Each of the three types below has:
// - Lane: an element in memory.
// - Widen and Narrow: conversion between lanes and float32. Narrow rounds to nearest even.
// - Round: the narrowed value as float32.
// - Load and Store of a pair: they widen and narrow.
// - RoundResult: Round, for results only.
// - Product: the exact product of two values of the type, rounded to the type.
//
// A result is a value that float32 arithmetic has computed from widened lanes. If a result is a
// NaN, it is quiet, and its payload comes from a widened lane or from a NaN that the machine has
// made. In both cases, the bits that narrowing drops are zero. Store takes results only.

// Load and Store of a type `T` whose pairs are in memory order: first the elements of the first
// vector, then those of the second vector.
template <class T, class Lane>
struct InOrder {
  template <class D>
  static HWY_INLINE Pair<D> Load(D d, const Lane* lanes) {
    const hn::Rebind<Lane, D> dt;
    return {T::Widen(d, hn::LoadU(dt, lanes)), T::Widen(d, hn::LoadU(dt, lanes + hn::Lanes(d)))};
  }
  template <class D>
  static HWY_INLINE void Store(D d, const Pair<D>& results, Lane* lanes) {
    const hn::Rebind<Lane, D> dt;
    hn::StoreU(T::Narrow(d, results.first), dt, lanes);
    hn::StoreU(T::Narrow(d, results.second), dt, lanes + hn::Lanes(d));
  }
};

struct Fp16 : InOrder<Fp16, uint16_t> {
  using Lane = uint16_t;

#if SWIGLU_HAS_F16C
  template <class D>
  static HWY_INLINE hn::Vec<D> Widen(D d, hn::Vec<HalfTag<D>> lanes) {
    return hn::PromoteTo(d, hn::BitCast(hn::Rebind<hwy::float16_t, D>(), lanes));
  }

  template <class D>
  static HWY_INLINE hn::Vec<HalfTag<D>> Narrow(D, hn::Vec<D> values) {
    return hn::BitCast(HalfTag<D>(), hn::DemoteTo(hn::Rebind<hwy::float16_t, D>(), values));
  }
#else
  template <class D>
  static HWY_INLINE hn::Vec<D> Widen(D d, hn::Vec<HalfTag<D>> lanes) {
    const hn::RebindToUnsigned<D> du;
    const auto bits = hn::PromoteTo(du, lanes);
    const auto sign = hn::ShiftLeft<16>(hn::And(bits, hn::Set(du, 0x8000u)));
    const auto magnitude = hn::And(bits, hn::Set(du, 0x7FFFu));
    const auto shifted = hn::ShiftLeft<13>(magnitude);
    // Normal numbers change the bias of the exponent from 15 to 127. Infinity and NaN need this
    // change twice, because their exponent goes from 31 to 255.
    const auto rebias = hn::Set(du, 112u << 23);
    const auto normal = hn::Add(shifted, rebias);
    const auto special = hn::Add(normal, rebias);
    // A subnormal number is computed as (2^-14 + its value) - 2^-14. This is exact.
    const auto least_normal = hn::Set(du, 113u << 23);
    const auto subnormal = hn::BitCast(
        du, hn::Sub(hn::BitCast(d, hn::Add(shifted, least_normal)), hn::BitCast(d, least_normal)));
    const auto is_subnormal = hn::Lt(ToSigned(d, magnitude), ToSigned(d, hn::Set(du, 0x0400u)));
    const auto is_special = hn::Gt(ToSigned(d, magnitude), ToSigned(d, hn::Set(du, 0x7BFFu)));
    auto result = hn::IfThenElse(hn::RebindMask(du, is_special), special, normal);
    result = hn::IfThenElse(hn::RebindMask(du, is_subnormal), subnormal, result);
    return hn::BitCast(d, hn::Or(result, sign));
  }

  template <class D>
  static HWY_INLINE hn::Vec<HalfTag<D>> Narrow(D d, hn::Vec<D> values) {
    const hn::RebindToUnsigned<D> du;
    const auto bits = hn::BitCast(du, values);
    const auto sign = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 0x8000u));
    const auto magnitude = hn::And(bits, hn::Set(du, 0x7FFFFFFFu));
    // Values of 65536 and more are infinite. Values from 65520 to 65536 round up to infinity
    // without further code.
    const auto infinite = hn::Set(du, 143u << 23);
    const auto over = hn::Gt(ToSigned(d, magnitude), ToSigned(d, infinite));
    const auto bounded = hn::IfThenElse(hn::RebindMask(du, over), infinite, magnitude);
    // Rounds normal numbers to nearest even. The code below adds half a unit if the last bit is
    // odd, and just under half a unit if it is even.
    const auto odd = hn::And(hn::ShiftRight<13>(bounded), hn::Set(du, 1u));
    const auto halfway = hn::Add(hn::Set(du, 0xFFFu), odd);
    const auto normal =
        hn::ShiftRight<13>(hn::Sub(hn::Add(bounded, halfway), hn::Set(du, 112u << 23)));
    // Subnormal results: adding 0.5 rounds to multiples of 2^-24, the step of FP16's subnormals.
    const auto half = hn::Set(d, 0.5f);
    const auto subnormal =
        hn::Sub(hn::BitCast(du, hn::Add(hn::BitCast(d, magnitude), half)), hn::BitCast(du, half));
    const auto is_subnormal = hn::Lt(hn::BitCast(d, magnitude), hn::Set(d, 0x1p-14f));
    const auto nan =
        hn::Or(hn::Set(du, 0x7E00u), hn::And(hn::ShiftRight<13>(magnitude), hn::Set(du, 0x03FFu)));
    auto result = hn::IfThenElse(hn::RebindMask(du, is_subnormal), subnormal, normal);
    result = hn::IfThenElse(hn::RebindMask(du, hn::IsNaN(values)), nan, result);
    return LowHalves(d, hn::Or(result, sign));
  }
#endif

  template <class D>
  static HWY_INLINE hn::Vec<D> Round(D d, hn::Vec<D> values) {
    return Widen(d, Narrow(d, values));
  }

  template <class D>
  static HWY_INLINE hn::Vec<D> RoundResult(D d, hn::Vec<D> result) {
    return Round(d, result);
  }

  // The product of two FP16 numbers is exact in float32.
  template <class D>
  static HWY_INLINE hn::Vec<D> Product(D d, hn::Vec<D> a, hn::Vec<D> b) {
    return Round(d, hn::Mul(a, b));
  }

 private:
  template <class D>
  static HWY_INLINE hn::Vec<hn::RebindToSigned<D>> ToSigned(D, hn::Vec<hn::RebindToUnsigned<D>> v) {
    return hn::BitCast(hn::RebindToSigned<D>(), v);
  }
};

struct Bf16 : InOrder<Bf16, uint16_t> {
  using Lane = uint16_t;

  template <class D>
  static HWY_INLINE hn::Vec<D> Widen(D d, hn::Vec<HalfTag<D>> lanes) {
    return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(hn::RebindToUnsigned<D>(), lanes)));
  }

  template <class D>
  static HWY_INLINE hn::Vec<HalfTag<D>> Narrow(D d, hn::Vec<D> values) {
    return LowHalves(d, hn::ShiftRight<16>(Nearest(d, AsResult(d, values))));
  }

  template <class D>
  static HWY_INLINE hn::Vec<D> Round(D d, hn::Vec<D> values) {
    return RoundResult(d, AsResult(d, values));
  }

#if HWY_TARGET != HWY_SCALAR
  // These replace the functions of the base class. The first vector has the even elements and the
  // second the odd ones. An even and an odd element are the halves of one 32-bit word, so no lane
  // has to move.
  template <class D>
  static HWY_INLINE Pair<D> Load(D d, const Lane* lanes) {
    const hn::RebindToUnsigned<D> du;
    const auto words = hn::BitCast(du, hn::LoadU(hn::Repartition<uint16_t, D>(), lanes));
    return {hn::BitCast(d, hn::ShiftLeft<16>(words)), hn::BitCast(d, UpperHalves(d, words))};
  }
  template <class D>
  static HWY_INLINE void Store(D d, const Pair<D>& results, Lane* lanes) {
    const hn::Repartition<uint16_t, D> du16;
    const auto even = hn::ShiftRight<16>(Nearest(d, results.first));
    const auto odd = Nearest(d, results.second);
    hn::StoreU(hn::OddEven(hn::BitCast(du16, odd), hn::BitCast(du16, even)), du16, lanes);
  }
#endif

  template <class D>
  static HWY_INLINE hn::Vec<D> RoundResult(D d, hn::Vec<D> result) {
    return hn::BitCast(d, UpperHalves(d, Nearest(d, result)));
  }

  // The product of two BF16 numbers has 16 bits. Float32 holds the product exactly, unless the
  // product has bits below 2^-149. Such a product is less than half of 2^-133, the least positive
  // number of BF16, so the right result is zero. The code gives zero: float32 rounds the product to
  // 2^-134 or less, and BF16 rounds 2^-134, which is a tie, to zero.
  template <class D>
  static HWY_INLINE hn::Vec<D> Product(D d, hn::Vec<D> a, hn::Vec<D> b) {
    return RoundResult(d, hn::Mul(a, b));
  }

 private:
  // Clears the lower 16 bits of each lane.
  template <class D>
  static HWY_INLINE hn::Vec<hn::RebindToUnsigned<D>> UpperHalves(
      D, hn::Vec<hn::RebindToUnsigned<D>> bits) {
    return hn::And(bits, hn::Set(hn::RebindToUnsigned<D>(), 0xFFFF0000u));
  }

  // The bits of `result` with the upper 16 rounded to nearest even. The lower 16 bits are
  // arbitrary. If `result` is a NaN, it stays a NaN, because nothing carries out of its lower bits.
  template <class D>
  static HWY_INLINE hn::Vec<hn::RebindToUnsigned<D>> Nearest(D, hn::Vec<D> result) {
    const hn::RebindToUnsigned<D> du;
    const auto bits = hn::BitCast(du, result);
    const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1u));
    return hn::Add(hn::Add(bits, hn::Set(du, 0x7FFFu)), odd);
  }

  // Returns `values`. Every NaN among them is replaced by the NaN that results have.
  template <class D>
  static HWY_INLINE hn::Vec<D> AsResult(D d, hn::Vec<D> values) {
    const hn::RebindToUnsigned<D> du;
    const auto quiet = hn::Or(hn::BitCast(du, values), hn::Set(du, 0x00400000u));
    return hn::IfThenElse(hn::IsNaN(values), hn::BitCast(d, UpperHalves(d, quiet)), values);
  }
};

struct Fp32 : InOrder<Fp32, float> {
  using Lane = float;

  template <class D>
  static HWY_INLINE hn::Vec<D> Widen(D, hn::Vec<D> lanes) {
    return lanes;
  }
  template <class D>
  static HWY_INLINE hn::Vec<D> Narrow(D, hn::Vec<D> values) {
    return values;
  }
  template <class D>
  static HWY_INLINE hn::Vec<D> Round(D, hn::Vec<D> values) {
    return values;
  }
  template <class D>
  static HWY_INLINE hn::Vec<D> RoundResult(D, hn::Vec<D> result) {
    return result;
  }
  template <class D>
  static HWY_INLINE hn::Vec<D> Product(D, hn::Vec<D> a, hn::Vec<D> b) {
    return hn::Mul(a, b);
  }
};

}  // namespace HWY_NAMESPACE
}  // namespace swiglu::internal
HWY_AFTER_NAMESPACE();

#endif  // include guard per instruction set
