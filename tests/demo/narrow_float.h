// SPDX-License-Identifier: Apache-2.0
//
// FP16 and BF16 as bit patterns: exact widening to double, one correct rounding back, and the order
// of neighbouring values. Shares no code with the kernels, which tests hold against it.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

namespace swiglu::demo {

// A 16-bit binary format: FP16 has 10 mantissa bits and smallest normal exponent -14, BF16 7 and
// -126.
struct NarrowFloat {
  int mantissa_bits;
  int min_exponent;

  // The pattern of +infinity; patterns above it, sign aside, are NaN.
  constexpr uint16_t Infinity() const {
    return static_cast<uint16_t>(0x7fff >> mantissa_bits << mantissa_bits);
  }
};

inline constexpr NarrowFloat kFp16{10, -14};
inline constexpr NarrowFloat kBf16{7, -126};

inline bool IsNan(NarrowFloat format, uint16_t bits) { return (bits & 0x7fff) > format.Infinity(); }

// The value of a pattern, exactly.
inline double Widen(NarrowFloat format, uint16_t bits) {
  const int magnitude = bits & 0x7fff;
  const double sign = (bits & 0x8000) != 0 ? -1.0 : 1.0;
  if (magnitude > format.Infinity()) return std::numeric_limits<double>::quiet_NaN();
  if (magnitude == format.Infinity()) return sign * std::numeric_limits<double>::infinity();
  const int exponent = magnitude >> format.mantissa_bits;
  const int hidden = exponent == 0 ? 0 : 1 << format.mantissa_bits;
  const int mantissa = (magnitude & ((1 << format.mantissa_bits) - 1)) | hidden;
  const int scale = format.min_exponent - format.mantissa_bits + (exponent == 0 ? 0 : exponent - 1);
  return sign * std::ldexp(mantissa, scale);
}

// The pattern nearest to `value`, ties to even, as if rounded once.
inline uint16_t Narrow(NarrowFloat format, double value) {
  const uint64_t bits = std::bit_cast<uint64_t>(value);
  const uint16_t sign = static_cast<uint16_t>(bits >> 63 << 15);
  if (std::isnan(value)) return sign | format.Infinity() | 1;
  if (std::isinf(value)) return sign | format.Infinity();

  // The mantissa with its hidden bit, shifted until its last bit is worth the last bit of the
  // format at that exponent.
  const int exponent = static_cast<int>(bits >> 52 & 0x7ff) - 1023;
  const uint64_t mantissa = (bits & ((uint64_t{1} << 52) - 1)) | uint64_t{1} << 52;
  const bool subnormal = exponent < format.min_exponent;
  const int shift = 52 - format.mantissa_bits + (subnormal ? format.min_exponent - exponent : 0);
  if (shift > 54) return sign;
  const uint64_t half_minus_one = (uint64_t{1} << (shift - 1)) - 1;
  const uint64_t rounded = (mantissa + half_minus_one + (mantissa >> shift & 1)) >> shift;

  // A mantissa that rounds up to the next power of two carries into the exponent by itself.
  const uint64_t steps = subnormal ? 0 : static_cast<uint64_t>(exponent - format.min_exponent);
  const uint64_t magnitude = (steps << format.mantissa_bits) + rounded;
  return magnitude >= format.Infinity() ? sign | format.Infinity()
                                        : static_cast<uint16_t>(sign | magnitude);
}

// The place of a pattern among all values: neighbours differ by one, and both zeros have place 0.
inline int Place(uint16_t bits) {
  const int magnitude = bits & 0x7fff;
  return (bits & 0x8000) != 0 ? -magnitude : magnitude;
}

// The pattern at a place; zero is positive.
inline uint16_t AtPlace(int place) {
  return static_cast<uint16_t>(place < 0 ? 0x8000 | -place : place);
}

}  // namespace swiglu::demo
