// SPDX-License-Identifier: Apache-2.0
//
// Formulas in float64, with the roundings to the dtype that they have (swiglu/segment.h).
#include "client/bench/formula_check.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace swiglu::bench {
namespace {

constexpr int64_t kMaxElements = int64_t{1} << 20;

// A prime, so that the elements of a large request have all positions in a vector.
constexpr int64_t kStep = 7919;

// The numbers of a dtype, and by how many units in the last place results may differ.
struct Format {
  int precision;  // bits, with the one before the point
  int min_exponent;
  double tolerance;
};

// By Dtype.
constexpr Format kFormats[] = {{11, -14, 1}, {8, -126, 1}, {24, -126, 64}};

double Ulp(const Format& format, double value) {
  const int exponent = value == 0 ? format.min_exponent : std::ilogb(value);
  return std::ldexp(1, std::max(exponent, format.min_exponent) - format.precision + 1);
}

double Round(const Format& format, double value) {
  const double ulp = Ulp(format, value);
  return std::nearbyint(value / ulp) * ulp;
}

double FromFp16(uint16_t bits) {
  const int exponent = bits >> 10 & 31;
  const int mantissa = bits & 1023;
  double size = std::ldexp(mantissa, -24);
  if (exponent == 31) size = mantissa == 0 ? INFINITY : NAN;
  if (exponent > 0 && exponent < 31) size = std::ldexp(mantissa + 1024, exponent - 25);
  return bits >> 15 != 0 ? -size : size;
}

// Element k of a tensor.
double Element(client::Dtype dtype, const std::byte* tensor, int64_t k) {
  const std::byte* const place = tensor + k * client::ElementBytes(dtype);
  if (dtype == client::Dtype::kFp32) {
    float value;
    std::memcpy(&value, place, sizeof(value));
    return value;
  }
  uint16_t bits;
  std::memcpy(&bits, place, sizeof(bits));
  return dtype == client::Dtype::kFp16 ? FromFp16(bits)
                                       : std::bit_cast<float>(uint32_t{bits} << 16);
}

// Results from `low` to `high` are right.
struct Range {
  double low;
  double high;

  // False for NaN.
  bool Has(double value) const { return low <= value && value <= high; }
};

Range Around(double middle, double distance) { return {middle - distance, middle + distance}; }

// The rounded products of a factor in `range` and of `other`.
Range Products(const Format& format, const Range& range, double other) {
  const double a = Round(format, range.low * other);
  const double b = Round(format, range.high * other);
  return {std::min(a, b), std::max(a, b)};
}

// What the outputs of one element may be, in the order of the model's outputs.
struct Outputs {
  Range of[3];
};

// `dw` is not used for forward, which has the first output alone.
Outputs Compute(const Format& format, double dw, double e, double g) {
  const double se = 1 / (1 + std::exp(-e));
  const double f = Round(format, se * e);
  const Range f_range = Around(f, format.tolerance * Ulp(format, f));
  const double dg = Round(format, dw * g);
  const double de = Round(format, dg * se * (1 + e * (1 - se)));
  const double de_unit =
      format.precision == 24 ? Ulp(format, dg * se * std::max(1.0, std::abs(e))) : Ulp(format, de);
  return {{Products(format, f_range, g), Products(format, f_range, dw),
           Around(de, format.tolerance * de_unit)}};
}

}  // namespace

absl::Status CheckByFormula(const RequestData& data, absl::Span<const std::byte> answer) {
  const Model& model = data.model();
  const Format& format = kFormats[static_cast<int>(model.dtype)];
  const bool is_backward = model.inputs.size() == 3;
  const std::byte* const dw = data.input(0).data();  // of backward
  const std::byte* const e = data.input(is_backward ? 1 : 0).data();
  const std::byte* const g = data.input(is_backward ? 2 : 1).data();
  const int64_t num_elements = data.num_elements();
  const int64_t num_checked = std::min(num_elements, kMaxElements);
  for (int64_t i = 0; i < num_checked; ++i) {
    const int64_t first = i * num_elements / num_checked;
    const int64_t end = (i + 1) * num_elements / num_checked;
    const int64_t k = first + i * kStep % (end - first);
    const Outputs right = Compute(format, is_backward ? Element(model.dtype, dw, k) : 0,
                                  Element(model.dtype, e, k), Element(model.dtype, g, k));
    for (size_t j = 0; j < model.outputs.size(); ++j) {
      const int64_t offset = static_cast<int64_t>(j) * TensorBytes(model, num_elements);
      const double found = Element(model.dtype, answer.data() + offset, k);
      if (right.of[j].Has(found)) continue;
      return absl::DataLossError(absl::StrCat(
          "wrong result: element ", k, " of output '", model.outputs[j], "' of '", model.name(),
          "' is ", found, "; the formula gives ", right.of[j].low, " to ", right.of[j].high));
    }
  }
  return absl::OkStatus();
}

}  // namespace swiglu::bench
