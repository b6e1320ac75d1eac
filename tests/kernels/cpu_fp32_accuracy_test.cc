// SPDX-License-Identifier: Apache-2.0
//
// FP32 on the CPU against the contract in float64: f within 4 ulp, de within 8 ulp of |dg * se| *
// max(1, |e|), over the golden values of e and closely around the places where a formula turns.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "tests/demo/formula.h"
#include "tests/kernels/cpu_runner.h"
#include "tests/kernels/golden.h"
#include "tests/kernels/patterns.h"
#include "tests/kernels/problem.h"

namespace swiglu::kernels {
namespace {

class CpuFp32AccuracyTest : public KernelTest {
 protected:
  // Checks f, and de for each pair of dw and g.
  void ExpectAccurate(const Patterns& e, const Patterns& dw, const Patterns& g);
};

INSTANTIATE_TEST_SUITE_P(Cpu, CpuFp32AccuracyTest, testing::ValuesIn(EveryCpuTarget()),
                         NameOfChoice);

constexpr uint32_t kOne = 0x3f800000;
constexpr double kLargest = std::numeric_limits<float>::max();

// The unit in the last place of float32 at `x`, as if its exponents had no upper end.
double UlpAt(double x) {
  const int exponent = x == 0.0 ? -126 : std::max(std::ilogb(x), -126);
  return std::ldexp(1.0, exponent - 23);
}

// A result that overflows may be infinity once it is within `tolerance` of the largest.
bool IsNear(float actual, double expected, double tolerance) {
  if (std::isnan(expected)) return std::isnan(actual);
  if (std::isinf(expected)) return actual == expected;
  if (expected == 0.0 && actual == 0.0f) return std::signbit(actual) == std::signbit(expected);
  if (std::isinf(actual)) {
    return std::signbit(actual) == std::signbit(expected) &&
           std::fabs(expected) + tolerance >= kLargest + UlpAt(kLargest) / 2;
  }
  return std::fabs(actual - expected) <= tolerance;
}

void CpuFp32AccuracyTest::ExpectAccurate(const Patterns& e, const Patterns& dw, const Patterns& g) {
  const Patterns f = Compute(Dtype::kFp32, {e, Repeated(e.size(), kOne)})[0];
  const Patterns de = Compute(Dtype::kFp32, {dw, e, g})[2];
  for (size_t i = 0; i < e.size(); ++i) {
    const double e_value = Value(Dtype::kFp32, e[i]);
    const double sigmoid = demo::Sigmoid(e_value);
    const double f_expected = sigmoid * e_value;
    ASSERT_TRUE(IsNear(std::bit_cast<float>(f[i]), f_expected, 4 * UlpAt(f_expected)))
        << std::hexfloat << "f(" << e_value << ") is " << std::bit_cast<float>(f[i]) << ", not "
        << f_expected;

    const double dg = Value(Dtype::kFp32, Product(Dtype::kFp32, dw[i], g[i]));
    const double de_expected = demo::GateGradient(dg, e_value, sigmoid);
    const double scale = demo::GateGradientScale(dg, e_value, sigmoid);
    ASSERT_TRUE(IsNear(std::bit_cast<float>(de[i]), de_expected, 8 * UlpAt(scale)))
        << std::hexfloat << "de(" << e_value << ") with dg = " << dg << " is "
        << std::bit_cast<float>(de[i]) << ", not " << de_expected;
  }
}

// All floats within `radius` places of `center`.
Patterns Around(float center, uint32_t radius) {
  Patterns patterns;
  const auto middle = std::bit_cast<uint32_t>(center);
  for (uint32_t bits = middle - radius; bits <= middle + radius; ++bits) patterns.push_back(bits);
  return patterns;
}

TEST_P(CpuFp32AccuracyTest, HoldsOverTheGoldenGates) {
  const Patterns e = ReadGoldenFp32().e;
  ExpectAccurate(e, Repeated(e.size(), kOne), Repeated(e.size(), kOne));
  ExpectAccurate(e, RandomPatterns(Dtype::kFp32, e.size(), 31),
                 RandomPatterns(Dtype::kFp32, e.size(), 32));
}

TEST_P(CpuFp32AccuracyTest, HoldsOverUniformGates) {
  Patterns e;
  for (int i = -500000; i <= 500000; ++i) e.push_back(Nearest(Dtype::kFp32, i * 2.13e-4));
  ExpectAccurate(e, Repeated(e.size(), kOne), Repeated(e.size(), kOne));
}

// Where de changes its sign, the exponential overflows or ends to matter, and where its reduction
// changes from one power of two to the next.
TEST_P(CpuFp32AccuracyTest, HoldsAroundEveryTurn) {
  for (const float center :
       {-1.2784645f, -88.722839f, -88.029692f, -87.336545f, 80.0f, -80.0f, 88.722839f, 16.635532f,
        17.328680f, 103.97208f, -103.97208f, 0.34657359f, -0.34657359f, 1.0397208f, -1.0397208f,
        -89.0f, 89.0f, 0x1p-24f}) {
    const Patterns e = Around(center, 2000);
    ExpectAccurate(e, Repeated(e.size(), kOne), Repeated(e.size(), kOne));
    ExpectAccurate(e, Repeated(e.size(), Nearest(Dtype::kFp32, 0x1.8p126)),
                   Repeated(e.size(), kOne));
    ExpectAccurate(e, Repeated(e.size(), Nearest(Dtype::kFp32, -3e-40)), Repeated(e.size(), kOne));
  }
}

// The largest float32 is exp(88.72283905...): f is -0 from the first gate below minus that on.
TEST_P(CpuFp32AccuracyTest, GivesZeroExactlyFromWhereTheExponentialOverflows) {
  const Patterns e = {0xc2b17217, 0xc2b17218, 0xc2b17219};  // -88.7228317, -88.7228394, ...
  const Patterns f = Compute(Dtype::kFp32, {e, Repeated(e.size(), kOne)})[0];
  EXPECT_LT(std::bit_cast<float>(f[0]), -2.6e-37f);
  EXPECT_EQ(f[1], 0x80000000u);
  EXPECT_EQ(f[2], 0x80000000u);
}

// dg may be far from 1 where the sigmoid is too: no intermediate may overflow or lose bits.
TEST_P(CpuFp32AccuracyTest, HoldsForExtremeGradients) {
  for (const double dg : {0x1p-149, 0x1p-126, 0x1p-60, 0x1p31, 0x1p32, 0x1.1p32, 0x1p100,
                          0x1.fffffep127, -0x1.fffffep127, HUGE_VAL, 0.0, -0.0}) {
    Patterns e;
    for (int i = -16000; i <= 16000; ++i) e.push_back(Nearest(Dtype::kFp32, i / 128.0));
    ExpectAccurate(e, Repeated(e.size(), Nearest(Dtype::kFp32, dg)), Repeated(e.size(), kOne));
  }
}

}  // namespace
}  // namespace swiglu::kernels
