// SPDX-License-Identifier: Apache-2.0
//
// The 16-bit conversions and products of the CPU kernels against plain arithmetic on bits, on every
// instruction set that this machine has.
#include "tests/kernels/conversions.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "tests/kernels/cpu_runner.h"
#include "tests/kernels/patterns.h"

namespace swiglu::kernels {
namespace {

class ConversionsTest : public KernelTest {};

INSTANTIATE_TEST_SUITE_P(Cpu, ConversionsTest, testing::ValuesIn(EveryCpuTarget()), NameOfChoice);

// Fills up to whole blocks with ones.
void Pad(std::vector<float>& values) {
  while (values.size() % kConversionBlock != 0) values.push_back(1.0f);
}

bool SameFloat(float a, float b) {
  return Same(Dtype::kFp32, std::bit_cast<uint32_t>(a), std::bit_cast<uint32_t>(b));
}

// Every pattern's value, as the kernels widen it.
std::vector<float> WidenEveryPattern(Dtype dtype) {
  std::vector<uint16_t> lanes(65536);
  for (size_t i = 0; i < lanes.size(); ++i) lanes[i] = static_cast<uint16_t>(i);
  std::vector<float> values(lanes.size());
  ConversionsOf(dtype).widen(lanes.data(), values.data(), lanes.size());
  return values;
}

// Checks both ways of rounding `values` to the dtype.
void ExpectRightRounding(Dtype dtype, std::vector<float> values) {
  Pad(values);
  std::vector<uint16_t> lanes(values.size());
  std::vector<float> rounded(values.size());
  ConversionsOf(dtype).narrow(values.data(), lanes.data(), values.size());
  ConversionsOf(dtype).round(values.data(), rounded.data(), values.size());
  for (size_t i = 0; i < values.size(); ++i) {
    const uint32_t expected = Nearest(dtype, values[i]);
    ASSERT_TRUE(Same(dtype, lanes[i], expected))
        << Name(dtype) << " of " << std::hexfloat << values[i] << std::hex << " is 0x" << lanes[i]
        << ", not 0x" << expected;
    ASSERT_TRUE(SameFloat(rounded[i], static_cast<float>(Value(dtype, expected))))
        << Name(dtype) << " of " << std::hexfloat << values[i] << " is " << rounded[i];
  }
}

TEST_P(ConversionsTest, WidensEveryPattern) {
  for (const Dtype dtype : kNarrowDtypes) {
    const std::vector<float> values = WidenEveryPattern(dtype);
    for (uint32_t i = 0; i < 65536; ++i) {
      ASSERT_TRUE(SameFloat(values[i], static_cast<float>(Value(dtype, i)))) << "pattern " << i;
    }
  }
}

TEST_P(ConversionsTest, NarrowsEveryWidenedPatternToItself) {
  for (const Dtype dtype : kNarrowDtypes) {
    const std::vector<float> values = WidenEveryPattern(dtype);
    std::vector<uint16_t> lanes(values.size());
    ConversionsOf(dtype).narrow(values.data(), lanes.data(), values.size());
    for (uint32_t i = 0; i < 65536; ++i) ASSERT_TRUE(Same(dtype, lanes[i], i)) << "pattern " << i;
  }
}

TEST_P(ConversionsTest, MakesNansQuietAndKeepsTheirSign) {
  for (const auto& [dtype, quiet] : {std::pair(Dtype::kFp16, 0x0200), {Dtype::kBf16, 0x0040}}) {
    // Payloads in the upper bits, in bits that narrowing drops, and both.
    std::vector<float> nans;
    for (const uint32_t bits : {0x7fc00000u, 0x7f800001u, 0x7fbfffffu, 0x7fffffffu, 0x7f801000u}) {
      nans.push_back(std::bit_cast<float>(bits));
      nans.push_back(std::bit_cast<float>(bits | 0x80000000u));
    }
    const size_t num_nans = nans.size();
    Pad(nans);
    std::vector<uint16_t> lanes(nans.size());
    ConversionsOf(dtype).narrow(nans.data(), lanes.data(), nans.size());
    for (size_t i = 0; i < num_nans; ++i) {
      EXPECT_TRUE(IsNan(dtype, lanes[i])) << Name(dtype) << " " << i;
      EXPECT_EQ(lanes[i] & quiet, quiet) << Name(dtype) << " " << i;
      EXPECT_EQ(lanes[i] >> 15, i % 2) << Name(dtype) << " " << i;
    }
  }
}

// The float32 halfway between two neighbours, with both of its own neighbours.
TEST_P(ConversionsTest, RoundsMidpointsToEvenAndTheirNeighboursToNearest) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  for (const Dtype dtype : kNarrowDtypes) {
    std::vector<float> values;
    for (uint32_t i = 0; i + 1 <= FormatOf(dtype).Infinity(); ++i) {
      const double step = Value(dtype, i) - (i == 0 ? 0.0 : Value(dtype, i - 1));
      // Infinity stands where the next value would be.
      const bool last = i + 1 == FormatOf(dtype).Infinity();
      const double next = last ? Value(dtype, i) + step : Value(dtype, i + 1);
      const auto middle = static_cast<float>((Value(dtype, i) + next) / 2);
      for (const float sign : {1.0f, -1.0f}) {
        values.push_back(sign * middle);
        values.push_back(sign * std::nextafter(middle, 0.0f));
        values.push_back(sign * std::nextafter(middle, kInfinity));
      }
    }
    ExpectRightRounding(dtype, values);
  }
}

TEST_P(ConversionsTest, RoundsKnownValues) {
  std::vector<float> values = {65519.99f, 65520.0f, 65536.0f, 0x1.fep127f, 0x1.ffp127f,
                               0x1p-25f,  0x3p-26f, 0x1p-14f, 0x1p-134f,   0x3p-135f};
  Pad(values);
  std::vector<uint16_t> lanes(values.size());
  ConversionsOf(Dtype::kFp16).narrow(values.data(), lanes.data(), values.size());
  lanes.resize(10);
  EXPECT_EQ(lanes, (std::vector<uint16_t>{0x7bff, 0x7c00, 0x7c00, 0x7c00, 0x7c00, 0x0000, 0x0001,
                                          0x0400, 0x0000, 0x0000}));
  lanes.resize(values.size());
  ConversionsOf(Dtype::kBf16).narrow(values.data(), lanes.data(), values.size());
  lanes.resize(10);
  EXPECT_EQ(lanes, (std::vector<uint16_t>{0x4780, 0x4780, 0x4780, 0x7f7f, 0x7f80, 0x3300, 0x3340,
                                          0x3880, 0x0000, 0x0001}));
}

TEST_P(ConversionsTest, RoundsSpecialAndRandomFloats) {
  std::vector<float> values;
  for (const uint32_t bits : {0x00000000u, 0x00000001u, 0x00007fffu, 0x00008000u, 0x00008001u,
                              0x007fffffu, 0x00800000u, 0x33000000u, 0x33000001u, 0x387fffffu,
                              0x38800000u, 0x477fefffu, 0x477ff000u, 0x7f7fffffu, 0x7f800000u}) {
    values.push_back(std::bit_cast<float>(bits));
    values.push_back(std::bit_cast<float>(bits | 0x80000000u));
  }
  std::mt19937 random(12);
  for (int i = 0; i < 1 << 20; ++i) {
    const auto bits = static_cast<uint32_t>(random());
    values.push_back(std::bit_cast<float>(bits));
    // The same significand with an exponent near the range of FP16.
    values.push_back(std::bit_cast<float>((bits & 0x807fffffu) | (96 + (bits >> 23) % 52) << 23));
  }
  for (const Dtype dtype : kNarrowDtypes) ExpectRightRounding(dtype, values);
}

// Checks the products of patterns, two by two.
void ExpectRightProducts(Dtype dtype, const Patterns& a, const Patterns& b) {
  std::vector<float> a_values, b_values;
  for (const uint32_t bits : a) a_values.push_back(static_cast<float>(Value(dtype, bits)));
  for (const uint32_t bits : b) b_values.push_back(static_cast<float>(Value(dtype, bits)));
  std::vector<float> products(a.size());
  ConversionsOf(dtype).product(a_values.data(), b_values.data(), products.data(), a.size());
  for (size_t i = 0; i < a.size(); ++i) {
    const auto expected = static_cast<float>(Value(dtype, Product(dtype, a[i], b[i])));
    ASSERT_TRUE(SameFloat(products[i], expected))
        << Name(dtype) << std::hexfloat << " " << a_values[i] << " * " << b_values[i] << " is "
        << products[i] << ", not " << expected;
  }
}

TEST_P(ConversionsTest, RoundsProductsOnce) {
  for (const Dtype dtype : kNarrowDtypes) {
    ExpectRightProducts(dtype, RandomPatterns(dtype, 1 << 20, 13),
                        RandomPatterns(dtype, 1 << 20, 14));
    for (const double factor : {1.0, -1.0, 0.0, 0.5, 1.0 / 3, -3e-5, 65504.0, HUGE_VAL}) {
      ExpectRightProducts(dtype, EveryPattern(), Repeated(65536, Nearest(dtype, factor)));
    }
  }
}

// Products of BF16 around its least normal number and below, some of which float32 rounds first.
TEST_P(ConversionsTest, RoundsTinyProductsOnce) {
  std::mt19937 random(15);
  Patterns a(1 << 20), b(1 << 20);
  for (size_t i = 0; i < a.size(); ++i) {
    const auto bits = static_cast<uint32_t>(random());
    const uint32_t exponent = 1 + bits % 125;
    const uint32_t sum = 114 + (bits >> 8) % 20;  // of both biased exponents; 127 gives 2^-127
    a[i] = (bits >> 16 & 0x807f) | exponent << 7;
    b[i] = (bits >> 1 & 0x807f) | (sum > exponent ? sum - exponent : 0) << 7;
  }
  ExpectRightProducts(Dtype::kBf16, a, b);
}

}  // namespace
}  // namespace swiglu::kernels
