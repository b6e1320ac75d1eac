// SPDX-License-Identifier: Apache-2.0
//
// Rounding works on the bits of doubles, so that a check of large tensors costs little more than
// its exponentials.
#include "client/check/formula.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

namespace swiglu::check {
namespace {

// The numbers of a dtype, and by how many ulp f and de may differ from the exact values.
struct NumberFormat {
  int precision;  // bits, with the one before the point
  int min_exponent;
  int max_exponent;
  double tolerance;
};

// By Dtype.
constexpr NumberFormat kNumberFormats[] = {
    {11, -14, 15, 1}, {8, -126, 127, 1}, {24, -126, 127, 64}};

const NumberFormat& FormatOf(Dtype dtype) { return kNumberFormats[static_cast<int>(dtype)]; }

// 2^exponent, for a normal result.
double PowerOfTwo(int exponent) {
  return std::bit_cast<double>(static_cast<uint64_t>(exponent + 1023) << 52);
}

double InfinityOf(const NumberFormat& format) { return PowerOfTwo(format.max_exponent + 1); }

// The distance between numbers of the format that are as large as `value`.
double UlpOf(const NumberFormat& format, double value) {
  const int exponent = static_cast<int>(std::bit_cast<uint64_t>(value) >> 52 & 0x7ff) - 1023;
  return PowerOfTwo(std::clamp(exponent, format.min_exponent, format.max_exponent) -
                    format.precision + 1);
}

// To nearest, ties to even. NaN stays.
double RoundTo(const NumberFormat& format, double value) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  if (std::abs(value) >= InfinityOf(format)) return std::copysign(kInfinity, value);
  // A number so large that its own ulp is that of the format.
  const double large = UlpOf(format, value) * 0x1.8p52;
  const double rounded = (value + large) - large;
  return std::copysign(std::abs(rounded) >= InfinityOf(format) ? kInfinity : rounded, value);
}

struct Range {
  double low;
  double high;

  bool HasZero() const { return low <= 0 && 0 <= high; }
};

Range Around(double middle, double distance) {
  if (!std::isfinite(middle)) return {middle, middle};
  return {middle - distance, middle + distance};
}

Range Hull(const Range& a, const Range& b) {
  return {std::min(a.low, b.low), std::max(a.high, b.high)};
}

// The denominator of the sigmoid, and the largest one that float32 can hold. Beyond it, the sigmoid
// is 0.
constexpr double kMaxDenominator = std::numeric_limits<float>::max();

double Denominator(double e) { return 1 + std::exp(-e); }

// So near to the largest denominator, an approximate exponential may be on the other side of it.
bool IsNearMax(double denominator) {
  return std::abs(denominator - kMaxDenominator) < kMaxDenominator * 0x1p-16;
}

struct Sigmoid {
  double value;
  double other;  // differs from `value` if that is also right
};

Sigmoid SigmoidOf(double e) {
  const double denominator = Denominator(e);
  const double value = denominator > kMaxDenominator ? 0 : 1 / denominator;
  if (!IsNearMax(denominator)) return {value, value};
  return {value, value == 0 ? 1 / denominator : 0};
}

// f = SiLU(e).
struct Activation {
  double exact;
  Range right;
};

Activation ActivationOf(const NumberFormat& format, double e, const Sigmoid& sigmoid) {
  const auto around = [&](double f) { return Around(f, format.tolerance * UlpOf(format, f)); };
  const double f = RoundTo(format, sigmoid.value * e);
  if (sigmoid.other == sigmoid.value) return {f, around(f)};
  return {f, Hull(around(f), around(RoundTo(format, sigmoid.other * e)))};
}

// Makes either infinity and NaN right: zero times infinity is NaN, and an approximate exponential
// decides on which side of zero the other factor is.
void AllowInfinitiesAndNan(Expected& expected) {
  expected.low = -std::numeric_limits<double>::infinity();
  expected.high = std::numeric_limits<double>::infinity();
  expected.may_be_nan = true;
  expected.may_be_finite = false;
}

Expected Product(const NumberFormat& format, const Activation& f, double other) {
  Expected expected;
  expected.infinity = InfinityOf(format);
  expected.exact = RoundTo(format, f.exact * other);
  expected.ulp = UlpOf(format, expected.exact);
  const double a = RoundTo(format, f.right.low * other);
  const double b = RoundTo(format, f.right.high * other);
  expected.low = std::min(a, b);
  expected.high = std::max(a, b);
  expected.may_be_nan = std::isnan(expected.exact);
  if (std::isinf(other) && f.right.HasZero()) AllowInfinitiesAndNan(expected);
  return expected;
}

// The last factor of de. It is zero near e = -1.28.
double LastFactor(double e, double se) { return 1 + e * (1 - se); }

// Whether an approximate exponential may turn the sign of a factor of de, or make it zero.
bool IsNearZero(double e, const Sigmoid& sigmoid) {
  return sigmoid.other != sigmoid.value || std::abs(LastFactor(e, sigmoid.value)) < 0x1p-18;
}

Expected GateGradient(const NumberFormat& format, double dg, double e, const Sigmoid& sigmoid) {
  const auto exact = [&](double se) { return RoundTo(format, dg * se * LastFactor(e, se)); };
  Expected expected;
  expected.infinity = InfinityOf(format);
  expected.exact = exact(sigmoid.value);
  const bool is_fp32 = format.precision == 24;
  const double scale = std::abs(dg * sigmoid.value) * std::max(1.0, std::abs(e));
  expected.ulp = UlpOf(format, is_fp32 ? scale : expected.exact);
  const bool is_near_zero = IsNearZero(e, sigmoid);
  // Zero times a finite number is exact.
  const double tolerance = dg == 0 && !is_near_zero ? 0 : format.tolerance * expected.ulp;
  const auto around = [&](double de) {
    // An infinite dg makes de infinite. Otherwise de overflows, and the largest numbers are near.
    return Around(std::isinf(dg) ? de : std::clamp(de, -expected.infinity, expected.infinity),
                  tolerance);
  };
  const Range right = Hull(around(expected.exact), around(exact(sigmoid.other)));
  expected.low = right.low;
  expected.high = right.high;
  expected.may_be_nan = std::isnan(expected.exact);
  if (std::isinf(dg) && is_near_zero) AllowInfinitiesAndNan(expected);
  return expected;
}

double FromFp16(uint16_t bits) {
  const int exponent = bits >> 10 & 31;
  const int mantissa = bits & 1023;
  double size = mantissa * 0x1p-24;
  if (exponent == 31) size = mantissa == 0 ? INFINITY : NAN;
  if (exponent > 0 && exponent < 31) size = (mantissa + 1024) * PowerOfTwo(exponent - 25);
  return bits >> 15 != 0 ? -size : size;
}

}  // namespace

bool Expected::IsRight(double found) const {
  const auto as_number = [this](double value) { return std::clamp(value, -infinity, infinity); };
  if (std::isnan(found)) return may_be_nan;
  if (std::isfinite(found) && !may_be_finite) return false;
  const bool is_zero = found == 0 && low == 0 && high == 0;
  if (is_zero && std::signbit(found) != std::signbit(exact)) return false;
  return as_number(low) <= as_number(found) && as_number(found) <= as_number(high);
}

double Expected::ErrorUlp(double found) const {
  if (may_be_nan && IsRight(found)) return 0;
  if (std::isnan(found) || std::isnan(exact)) return std::numeric_limits<double>::infinity();
  return std::abs(std::clamp(found, -infinity, infinity) - std::clamp(exact, -infinity, infinity)) /
         ulp;
}

Expected ExpectForward(Dtype dtype, double e, double g) {
  const NumberFormat& format = FormatOf(dtype);
  return Product(format, ActivationOf(format, e, SigmoidOf(e)), g);
}

ExpectedResults ExpectBackward(Dtype dtype, double dw, double e, double g) {
  const NumberFormat& format = FormatOf(dtype);
  const Sigmoid sigmoid = SigmoidOf(e);
  const Activation f = ActivationOf(format, e, sigmoid);
  return {Product(format, f, g), Product(format, f, dw),
          GateGradient(format, RoundTo(format, dw * g), e, sigmoid)};
}

double ElementAt(Dtype dtype, const std::byte* tensor, int64_t index) {
  const std::byte* const place = tensor + index * ElementBytes(dtype);
  if (dtype == Dtype::kFp32) {
    float value;
    std::memcpy(&value, place, sizeof(value));
    return value;
  }
  uint16_t bits;
  std::memcpy(&bits, place, sizeof(bits));
  return dtype == Dtype::kFp16 ? FromFp16(bits) : std::bit_cast<float>(uint32_t{bits} << 16);
}

}  // namespace swiglu::check
