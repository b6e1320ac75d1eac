// SPDX-License-Identifier: Apache-2.0
//
// The element types FP16, BF16 and FP32 as vectors of float32: widening, rounding to nearest even,
// narrowing, and products rounded once. Included once per instruction set, as Highway asks.
//
// Highway has conversions of its own, but its release 1.0.3 truncates to BF16 and mishandles FP16
// infinities and NaNs below AVX2. These are exact on every instruction set: subnormals, signed
// zeros and infinities are kept, and a NaN becomes a quiet NaN.
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

// The tag of as many 16-bit lanes as `D` has 32-bit ones.
template <class D>
using HalfTag = hn::Rebind<uint16_t, D>;

// Returns the low 16 bits of each lane, which must hold no more.
template <class D>
HWY_INLINE hn::Vec<HalfTag<D>> LowHalves(D, hn::Vec<hn::RebindToUnsigned<D>> bits) {
  const hn::RebindToSigned<D> di;
  return hn::DemoteTo(HalfTag<D>(), hn::BitCast(di, bits));
}

// Each of the three types below has: Lane, an element in memory; Widen and Narrow, between lanes
// and float32 (Narrow rounds to nearest even); Round, the narrowed value as float32; and Product,
// the exact product of two values of the type, rounded to the type.
struct Fp16 {
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
    // Normal numbers change the bias of the exponent from 15 to 127; infinity and NaN change it
    // twice, from 31 to 255.
    const auto rebias = hn::Set(du, 112u << 23);
    const auto normal = hn::Add(shifted, rebias);
    const auto special = hn::Add(normal, rebias);
    // A subnormal is its significand above 2^-14, less 2^-14. Exact.
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
    // 65536 and more are infinite; what lies between 65520 and it rounds up to infinity by itself.
    const auto infinite = hn::Set(du, 143u << 23);
    const auto over = hn::Gt(ToSigned(d, magnitude), ToSigned(d, infinite));
    const auto bounded = hn::IfThenElse(hn::RebindMask(du, over), infinite, magnitude);
    // Normal numbers: nearest even by adding just under half, or half where the last bit is odd.
    const auto odd = hn::And(hn::ShiftRight<13>(bounded), hn::Set(du, 1u));
    const auto halfway = hn::Add(hn::Set(du, 0xFFFu), odd);
    const auto normal =
        hn::ShiftRight<13>(hn::Sub(hn::Add(bounded, halfway), hn::Set(du, 112u << 23)));
    // Subnormal results: the unit in the last place of 0.5 is the step of FP16's subnormals.
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

struct Bf16 {
  using Lane = uint16_t;

  template <class D>
  static HWY_INLINE hn::Vec<D> Widen(D d, hn::Vec<HalfTag<D>> lanes) {
    return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(hn::RebindToUnsigned<D>(), lanes)));
  }

  template <class D>
  static HWY_INLINE hn::Vec<HalfTag<D>> Narrow(D d, hn::Vec<D> values) {
    return LowHalves(d, hn::ShiftRight<16>(Rounded(d, values)));
  }

  template <class D>
  static HWY_INLINE hn::Vec<D> Round(D d, hn::Vec<D> values) {
    const hn::RebindToUnsigned<D> du;
    return hn::BitCast(d, hn::And(Rounded(d, values), hn::Set(du, 0xFFFF0000u)));
  }

  // The product of two BF16 numbers has 16 bits, so it is exact in float32 from 2^-126 up. Below,
  // float32 would round it once and BF16 again; there it is scaled up before it is rounded.
  template <class D>
  static HWY_INLINE hn::Vec<D> Product(D d, hn::Vec<D> a, hn::Vec<D> b) {
    const auto product = hn::Mul(a, b);
    const auto tiny = hn::Lt(hn::Abs(product), hn::Set(d, 0x1p-126f));
    if (HWY_LIKELY(hn::AllFalse(d, tiny))) return Round(d, product);
    return Round(d, hn::IfThenElse(tiny, TinyProduct(d, a, b, product), product));
  }

 private:
  // The bits of `values` with the upper 16 rounded to nearest even, whatever the lower are.
  template <class D>
  static HWY_INLINE hn::Vec<hn::RebindToUnsigned<D>> Rounded(D, hn::Vec<D> values) {
    const hn::RebindToUnsigned<D> du;
    const auto bits = hn::BitCast(du, values);
    const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1u));
    const auto nearest = hn::Add(bits, hn::Add(hn::Set(du, 0x7FFFu), odd));
    const auto quiet = hn::Or(bits, hn::Set(du, 0x00400000u));
    return hn::IfThenElse(hn::RebindMask(du, hn::IsNaN(values)), quiet, nearest);
  }

  // a * b rounded to a multiple of 2^-133, BF16's least positive number. `product` gives the sign.
  // REQUIRES: |a * b| < 2^-126.
  template <class D>
  static HWY_NOINLINE hn::Vec<D> TinyProduct(D d, hn::Vec<D> a, hn::Vec<D> b, hn::Vec<D> product) {
    const auto smaller = hn::Min(hn::Abs(a), hn::Abs(b));
    const auto larger = hn::Max(hn::Abs(a), hn::Abs(b));
    const auto scaled = hn::Mul(hn::Mul(smaller, hn::Set(d, 0x1p100f)), larger);
    // The unit in the last place of 2^-10 is 2^-33, which is 2^-133 scaled.
    const auto grid = hn::Set(d, 0x1p-10f);
    const auto rounded = hn::Sub(hn::Add(scaled, grid), grid);
    return hn::CopySign(hn::Mul(rounded, hn::Set(d, 0x1p-100f)), product);
  }
};

struct Fp32 {
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
  static HWY_INLINE hn::Vec<D> Product(D, hn::Vec<D> a, hn::Vec<D> b) {
    return hn::Mul(a, b);
  }
};

}  // namespace HWY_NAMESPACE
}  // namespace swiglu::internal
HWY_AFTER_NAMESPACE();

#endif  // include guard per instruction set
