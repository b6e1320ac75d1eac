// SPDX-License-Identifier: Apache-2.0
//
// SwiGLU in float64 with the contract's intermediate roundings, plain and slow, to see that an
// executor put the right numbers in the right places. The kernels' own tests judge their last bits.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "server/core/model.h"

namespace swiglu::server {

// A binary floating point format.
struct FloatFormat {
  int exponent_bits;
  int mantissa_bits;  // stored ones

  int min_exponent() const { return 2 - (1 << (exponent_bits - 1)); }
  uint32_t infinity() const { return ((1u << exponent_bits) - 1) << mantissa_bits; }
  double ulp_of_one() const { return std::ldexp(1.0, -mantissa_bits); }
};

inline FloatFormat FormatOf(Dtype dtype) {
  if (dtype == Dtype::kFp16) return {5, 10};
  if (dtype == Dtype::kBf16) return {8, 7};
  return {8, 23};
}

// The bits of the value of that format which is nearest to `x`, ties to even. REQUIRES: x is
// finite.
inline uint32_t Encode(double x, FloatFormat format) {
  const uint32_t sign = std::signbit(x) ? 1u << (format.exponent_bits + format.mantissa_bits) : 0;
  if (x == 0) return sign;
  const int exponent = std::max(std::ilogb(x), format.min_exponent());
  const double significand =
      std::nearbyint(std::ldexp(std::fabs(x), format.mantissa_bits - exponent));
  if (exponent > -format.min_exponent() + 1) return sign | format.infinity();
  const uint32_t bits =
      (static_cast<uint32_t>(exponent - format.min_exponent()) << format.mantissa_bits) +
      static_cast<uint32_t>(significand);
  return sign | std::min(bits, format.infinity());
}

// REQUIRES: the bits are of a finite value.
inline double Decode(uint32_t bits, FloatFormat format) {
  const uint32_t mantissa = bits & ((1u << format.mantissa_bits) - 1);
  const int biased = static_cast<int>((bits & format.infinity()) >> format.mantissa_bits);
  const double significand =
      biased == 0 ? mantissa : mantissa + std::ldexp(1.0, format.mantissa_bits);
  const double magnitude = std::ldexp(
      significand, std::max(biased - 1, 0) + format.min_exponent() - format.mantissa_bits);
  return bits >> (format.exponent_bits + format.mantissa_bits) & 1 ? -magnitude : magnitude;
}

inline double Round(double x, FloatFormat format) { return Decode(Encode(x, format), format); }

// Element `index` of a tensor, read and written.
inline double LoadElement(const std::byte* data, int64_t index, Dtype dtype) {
  uint32_t bits = 0;
  std::memcpy(&bits, data + index * ElementBytes(dtype), ElementBytes(dtype));
  return Decode(bits, FormatOf(dtype));
}
inline void StoreElement(std::byte* data, int64_t index, Dtype dtype, double value) {
  const uint32_t bits = Encode(value, FormatOf(dtype));
  std::memcpy(data + index * ElementBytes(dtype), &bits, ElementBytes(dtype));
}

// One element's results, and for each the magnitude that an error is measured against.
struct ReferenceElement {
  double outputs[kMaxTensors];
  double scales[kMaxTensors];
};

inline ReferenceElement ReferenceForward(double e, double g, FloatFormat format) {
  const double f = Round(e / (1 + std::exp(-e)), format);
  const double h = Round(f * g, format);
  return {{h}, {std::fabs(h)}};
}

inline ReferenceElement ReferenceBackward(double dw, double e, double g, FloatFormat format) {
  const double sigmoid = 1 / (1 + std::exp(-e));
  const double f = Round(e * sigmoid, format);
  const double dg = Round(dw * g, format);
  const double h = Round(f * g, format);
  const double df = Round(dw * f, format);
  const double de = Round(dg * sigmoid * (1 + e * (1 - sigmoid)), format);
  // The last factor cancels near e = -1.28.
  const double de_scale = std::fabs(dg * sigmoid) * std::max(1.0, std::fabs(e));
  return {{h, df, de}, {std::fabs(h), std::fabs(df), de_scale}};
}

// Room for approximate exponentials and their way through later roundings; far below any misplaced
// number.
inline double ReferenceTolerance(double scale, Dtype dtype) {
  const FloatFormat format = FormatOf(dtype);
  const double num_ulps = dtype == Dtype::kFp32 ? 64 : 4;
  return num_ulps * format.ulp_of_one() * std::max(scale, std::ldexp(1.0, format.min_exponent()));
}

}  // namespace swiglu::server
