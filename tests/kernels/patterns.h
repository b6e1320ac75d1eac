// SPDX-License-Identifier: Apache-2.0
//
// Elements of all three dtypes as bit patterns in the low bits of 32: their values, correct
// rounding, exact products and comparison. Shares no code with the kernels.
#pragma once

#include <gtest/gtest.h>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <ios>
#include <random>
#include <vector>

#include "swiglu/dtype.h"
#include "tests/demo/narrow_float.h"

namespace swiglu::kernels {

// The elements of one tensor.
using Patterns = std::vector<uint32_t>;

inline constexpr Dtype kDtypes[] = {Dtype::kFp16, Dtype::kBf16, Dtype::kFp32};
inline constexpr Dtype kNarrowDtypes[] = {Dtype::kFp16, Dtype::kBf16};

inline const char* Name(Dtype dtype) {
  if (dtype == Dtype::kFp16) return "fp16";
  return dtype == Dtype::kBf16 ? "bf16" : "fp32";
}

// REQUIRES: dtype is FP16 or BF16.
inline demo::NarrowFloat FormatOf(Dtype dtype) {
  return dtype == Dtype::kFp16 ? demo::kFp16 : demo::kBf16;
}

inline bool IsNan(Dtype dtype, uint32_t bits) {
  if (dtype == Dtype::kFp32) return (bits & 0x7fffffffu) > 0x7f800000u;
  return demo::IsNan(FormatOf(dtype), static_cast<uint16_t>(bits));
}

inline double Value(Dtype dtype, uint32_t bits) {
  if (dtype == Dtype::kFp32) return std::bit_cast<float>(bits);
  return demo::Widen(FormatOf(dtype), static_cast<uint16_t>(bits));
}

// The pattern nearest to `value`, ties to even.
inline uint32_t Nearest(Dtype dtype, double value) {
  if (dtype == Dtype::kFp32) return std::bit_cast<uint32_t>(static_cast<float>(value));
  return demo::Narrow(FormatOf(dtype), value);
}

// a * b rounded once. In float64 the product is exact, for FP32 too.
inline uint32_t Product(Dtype dtype, uint32_t a, uint32_t b) {
  return Nearest(dtype, Value(dtype, a) * Value(dtype, b));
}

// Equal bits, or NaN both.
inline bool Same(Dtype dtype, uint32_t a, uint32_t b) {
  return a == b || (IsNan(dtype, a) && IsNan(dtype, b));
}

// Whether two tensors are the same, element by element; names the first difference.
inline testing::AssertionResult SameTensor(Dtype dtype, const Patterns& actual,
                                           const Patterns& expected) {
  if (actual.size() != expected.size()) {
    return testing::AssertionFailure()
           << actual.size() << " elements instead of " << expected.size();
  }
  size_t num_differing = 0, first = 0;
  for (size_t i = actual.size(); i-- > 0;) {
    if (Same(dtype, actual[i], expected[i])) continue;
    ++num_differing;
    first = i;
  }
  if (num_differing == 0) return testing::AssertionSuccess();
  return testing::AssertionFailure()
         << num_differing << " of " << actual.size() << " " << Name(dtype)
         << " elements differ; the first, " << first << ", is 0x" << std::hex << actual[first]
         << " instead of 0x" << expected[first];
}

inline Patterns Repeated(size_t num_elements, uint32_t pattern) {
  return Patterns(num_elements, pattern);
}

// All patterns of a 16-bit type, in order.
inline Patterns EveryPattern() {
  Patterns patterns(65536);
  for (uint32_t i = 0; i < 65536; ++i) patterns[i] = i;
  return patterns;
}

// Half random patterns, which have every exponent, NaNs and infinities; half values in [-12, 12).
inline Patterns RandomPatterns(Dtype dtype, size_t num_elements, uint32_t seed) {
  std::mt19937 random(seed);
  Patterns patterns(num_elements);
  for (uint32_t& pattern : patterns) {
    const auto bits = static_cast<uint32_t>(random());
    const bool any = (random() & 1u) != 0;
    pattern = any ? bits >> (32 - 8 * ElementBytes(dtype)) : Nearest(dtype, bits * 0x18p-32 - 12);
  }
  return patterns;
}

}  // namespace swiglu::kernels
