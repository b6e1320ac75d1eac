// SPDX-License-Identifier: Apache-2.0
//
// The formulas against the kernels of the CPU, also on special values, and against results with an
// error.
#include "client/check/formula.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "swiglu/cpu.h"

namespace swiglu::check {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();

// Bit patterns of zero, one, the smallest and the largest numbers, infinity and NaN.
std::vector<uint32_t> SpecialPatterns(Dtype dtype) {
  if (dtype == Dtype::kFp16) return {0, 1, 0x0400, 0x3c00, 0x4248, 0x7bff, 0x7c00, 0x7e00};
  if (dtype == Dtype::kBf16) return {0, 1, 0x0080, 0x3f80, 0x4049, 0x7f7f, 0x7f80, 0x7fc0};
  return {0, 1, 0x00800000, 0x3f800000, 0x40490fdb, 0x7f7fffff, 0x7f800000, 0x7fc00000};
}

// Every gate of 16 bits; in FP32 some of all magnitudes, and those around the largest
// exponential that float32 can hold.
std::vector<uint32_t> Gates(Dtype dtype) {
  std::vector<uint32_t> gates;
  if (dtype != Dtype::kFp32) {
    for (uint32_t bits = 0; bits < 65536; ++bits) gates.push_back(bits);
    return gates;
  }
  for (uint32_t bits = 0; bits < 0xffff0000; bits += 65521) gates.push_back(bits);
  for (uint32_t bits = 0xc2b17000; bits < 0xc2b17400; ++bits) gates.push_back(bits);
  return gates;
}

std::vector<std::byte> Tensor(Dtype dtype, const std::vector<uint32_t>& patterns) {
  const auto size = static_cast<size_t>(ElementBytes(dtype));
  std::vector<std::byte> bytes(patterns.size() * size);
  for (size_t k = 0; k < patterns.size(); ++k) std::memcpy(&bytes[k * size], &patterns[k], size);
  return bytes;
}

class FormulaTest : public ::testing::TestWithParam<Dtype> {};

TEST_P(FormulaTest, ResultsOfTheCpuAreRight) {
  const Dtype dtype = GetParam();
  const std::vector<uint32_t> gates = Gates(dtype);
  const std::vector<std::byte> e = Tensor(dtype, gates);
  std::vector<std::byte> h(e.size()), df(e.size()), de(e.size());
  for (const uint32_t sign : {0u, 1u << (8 * ElementBytes(dtype) - 1)}) {
    for (const uint32_t special : SpecialPatterns(dtype)) {
      const std::vector<std::byte> dw =
          Tensor(dtype, std::vector<uint32_t>(gates.size(), special | sign));
      const std::vector<std::byte> g =
          Tensor(dtype, std::vector<uint32_t>(gates.size(), SpecialPatterns(dtype)[special % 7]));
      const BackwardSegment segment{dw.data(),
                                    e.data(),
                                    g.data(),
                                    h.data(),
                                    df.data(),
                                    de.data(),
                                    static_cast<int64_t>(gates.size())};
      ASSERT_EQ(BackwardCpu(dtype, {&segment, 1}), KernelStatus::kOk);
      for (int64_t k = 0; k < segment.num_elements; ++k) {
        const double gate = ElementAt(dtype, e.data(), k);
        const double up = ElementAt(dtype, g.data(), k);
        const auto [of_h, of_df, of_de] =
            ExpectBackward(dtype, ElementAt(dtype, dw.data(), k), gate, up);
        ASSERT_TRUE(of_h.IsRight(ElementAt(dtype, h.data(), k))) << gate << " " << up;
        ASSERT_TRUE(of_df.IsRight(ElementAt(dtype, df.data(), k))) << gate << " " << special;
        ASSERT_TRUE(of_de.IsRight(ElementAt(dtype, de.data(), k))) << gate << " " << special;
        ASSERT_TRUE(ExpectForward(dtype, gate, up).IsRight(ElementAt(dtype, h.data(), k)));
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Dtypes, FormulaTest,
                         ::testing::Values(Dtype::kFp16, Dtype::kBf16, Dtype::kFp32));

TEST(FormulaValuesTest, LiteralValuesAreExact) {
  // SiLU(1) = 0.731058..., rounded.
  EXPECT_EQ(ExpectForward(Dtype::kFp16, 1, 1).exact, 0x1.764p-1);
  EXPECT_EQ(ExpectForward(Dtype::kBf16, 1, 1).exact, 0x1.76p-1);
  EXPECT_EQ(ExpectForward(Dtype::kFp32, 1, 1).exact, 0x1.764d5p-1);
  const ExpectedResults results = ExpectBackward(Dtype::kFp16, 2, 0, 3);
  EXPECT_EQ(results.h.exact, 0);
  EXPECT_EQ(results.df.exact, 0);
  EXPECT_EQ(results.de.exact, 3);
}

TEST(FormulaValuesTest, ErrorsAreCountedInUlpOfTheExactValue) {
  const Expected expected = ExpectForward(Dtype::kFp16, 1, 1);
  EXPECT_EQ(expected.ulp, 0x1p-11);
  EXPECT_EQ(expected.ErrorUlp(0x1.764p-1), 0);
  EXPECT_EQ(expected.ErrorUlp(0x1.768p-1), 1);
  EXPECT_EQ(expected.ErrorUlp(0x1.75cp-1), 2);
  EXPECT_EQ(expected.ErrorUlp(std::nan("")), kInf);
  EXPECT_TRUE(expected.IsRight(0x1.768p-1));
  EXPECT_FALSE(expected.IsRight(0x1.76cp-1));
  EXPECT_FALSE(expected.IsRight(std::nan("")));
}

TEST(FormulaValuesTest, InfinityIsOneUlpFromTheLargestNumber) {
  const Expected expected = ExpectForward(Dtype::kFp16, 65504, 2);
  EXPECT_EQ(expected.exact, kInf);
  EXPECT_EQ(expected.ErrorUlp(kInf), 0);
  EXPECT_EQ(expected.ErrorUlp(65504), 1);
  EXPECT_FALSE(expected.IsRight(65504));
}

// The largest number of each dtype, and a gate for which de is within the tolerance of infinity if
// that number is its dg.
struct NearInfinity {
  Dtype dtype;
  double largest;
  double e;
};
const NearInfinity kNearInfinity[] = {{Dtype::kFp16, 65504, 0x1.528p3},
                                      {Dtype::kBf16, 0x1.fep127, 0x1p3},
                                      {Dtype::kFp32, 0x1.fffffep127, 0x1.43c86ep4}};

TEST(FormulaValuesTest, DeMayBeOnEitherSideOfInfinity) {
  for (const auto& [dtype, largest, e] : kNearInfinity) {
    for (const double dw : {largest, -largest}) {
      const Expected de = ExpectBackward(dtype, dw, e, 1).de;
      EXPECT_LE(de.ErrorUlp(std::copysign(kInf, dw)), 1) << e;
      EXPECT_LE(de.ErrorUlp(dw), 1) << e;
      EXPECT_TRUE(de.IsRight(std::copysign(kInf, dw))) << e;
      EXPECT_TRUE(de.IsRight(dw)) << e;
      EXPECT_FALSE(de.IsRight(dw * 0.9)) << e;
      EXPECT_FALSE(de.IsRight(-std::copysign(kInf, dw))) << e;
    }
  }
}

TEST(FormulaValuesTest, DeIsInfiniteIfAndOnlyIfItIsNear) {
  for (const auto& [dtype, largest, e] : kNearInfinity) {
    const Expected of_infinite_dg = ExpectBackward(dtype, largest, e, 2).de;
    EXPECT_TRUE(of_infinite_dg.IsRight(kInf)) << e;
    EXPECT_FALSE(of_infinite_dg.IsRight(largest)) << e;
    EXPECT_FALSE(ExpectBackward(dtype, largest, 0, 1).de.IsRight(kInf)) << e;
  }
}

// The last factor of de is nearly zero, so an approximate exponential decides on its sign.
TEST(FormulaValuesTest, AnInfiniteDgMayGiveAnyInfinityWhereDeCancels) {
  const Expected de = ExpectBackward(Dtype::kFp32, kInf, -1.2784645557403564, 1).de;
  EXPECT_TRUE(de.IsRight(kInf));
  EXPECT_TRUE(de.IsRight(-kInf));
  EXPECT_TRUE(de.IsRight(std::nan("")));
  EXPECT_FALSE(de.IsRight(0));
  EXPECT_FALSE(ExpectBackward(Dtype::kFp32, kInf, -1.27, 1).de.IsRight(-kInf));
}

TEST(FormulaValuesTest, AZeroHasItsSign) {
  for (const Dtype dtype : {Dtype::kFp16, Dtype::kBf16, Dtype::kFp32}) {
    const auto [h, df, de] = ExpectBackward(dtype, -0.0, 1, 0.0);
    EXPECT_TRUE(h.IsRight(0.0));
    EXPECT_FALSE(h.IsRight(-0.0));
    EXPECT_TRUE(df.IsRight(-0.0));
    EXPECT_FALSE(df.IsRight(0.0));
    EXPECT_TRUE(de.IsRight(-0.0));
    EXPECT_FALSE(de.IsRight(0.0));
  }
}

// The last factor of de is nearly zero, so its sign is not known.
TEST(FormulaValuesTest, AZeroWhereDeCancelsMayHaveEitherSign) {
  const Expected de = ExpectBackward(Dtype::kFp32, 0.0, -1.2784645557403564, 1).de;
  EXPECT_TRUE(de.IsRight(0.0));
  EXPECT_TRUE(de.IsRight(-0.0));
}

TEST(FormulaValuesTest, NanIsRightWhereTheFormulaGivesIt) {
  for (const double e : {-kInf, std::nan("")}) {
    const Expected expected = ExpectForward(Dtype::kBf16, e, 1);
    EXPECT_TRUE(expected.IsRight(std::nan("")));
    EXPECT_EQ(expected.ErrorUlp(std::nan("")), 0);
    EXPECT_FALSE(expected.IsRight(0));
    EXPECT_EQ(expected.ErrorUlp(0), kInf);
  }
}

// The smallest FP16 number of f may be 0 instead, and 0 times infinity is NaN.
TEST(FormulaValuesTest, ZeroTimesInfinityMayBeNan) {
  const Expected expected = ExpectForward(Dtype::kFp16, 0x1p-23, kInf);
  EXPECT_TRUE(expected.IsRight(kInf));
  EXPECT_TRUE(expected.IsRight(std::nan("")));
  EXPECT_FALSE(expected.IsRight(1));
}

// f of the smallest numbers is 0 or one of them, and 0 times infinity is NaN.
TEST(FormulaValuesTest, ARightResultHasNoErrorWhereNanMayBe) {
  for (const double e : {0x1p-24, -0x1p-24}) {
    const Expected expected = ExpectForward(Dtype::kFp16, e, kInf);
    EXPECT_EQ(expected.ErrorUlp(std::copysign(kInf, e)), 0);
    EXPECT_EQ(expected.ErrorUlp(std::nan("")), 0);
    EXPECT_GT(expected.ErrorUlp(1), 0);
  }
}

// The unit of de in FP32 is that of its largest part: the parts cancel near e = -1.28.
TEST(FormulaValuesTest, TheUnitOfDeInFp32DoesNotCancel) {
  EXPECT_EQ(ExpectBackward(Dtype::kFp32, 1, -1.2784645557403564, 1).de.ulp, 0x1p-25);
}

TEST(FormulaValuesTest, EitherSideOfTheLargestExponentialIsRightInFp32) {
  const Expected expected = ExpectForward(Dtype::kFp32, -88.7228317, 1);
  EXPECT_LT(expected.exact, -2.6e-37);
  EXPECT_TRUE(expected.IsRight(expected.exact));
  EXPECT_TRUE(expected.IsRight(0));
  EXPECT_FALSE(ExpectForward(Dtype::kFp32, -88.7, 1).IsRight(0));
  EXPECT_FALSE(ExpectForward(Dtype::kFp32, -88.75, 1).IsRight(-2.6e-37));
}

}  // namespace
}  // namespace swiglu::check
