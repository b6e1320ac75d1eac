// SPDX-License-Identifier: Apache-2.0
//
// The checker is itself checked: its rounding on known patterns, its formulas against the tables
// that the reference kernel wrote, and that it rejects what is two ulp off.
#include "tests/demo/evaluation.h"

#include <gtest/gtest.h>

#include <fstream>
#include <string>
#include <vector>

namespace swiglu::demo {
namespace {

std::vector<uint16_t> Golden(const std::string& name) {
  std::ifstream file(std::string(GOLDEN_DIR) + "/" + name, std::ios::binary | std::ios::ate);
  std::vector<uint16_t> values(file ? static_cast<size_t>(file.tellg()) / 2 : 0);
  file.seekg(0);
  file.read(reinterpret_cast<char*>(values.data()),
            static_cast<std::streamsize>(values.size() * 2));
  return values;
}

TEST(NarrowFloatTest, WidensAndNarrowsEveryPatternToItself) {
  for (const NarrowFloat format : {kFp16, kBf16}) {
    for (int bits = 0; bits < 1 << 16; ++bits) {
      const auto pattern = static_cast<uint16_t>(bits);
      if (IsNan(format, pattern)) continue;
      ASSERT_EQ(Narrow(format, Widen(format, pattern)), pattern);
    }
  }
}

TEST(NarrowFloatTest, RoundsOnceToNearestEven) {
  EXPECT_EQ(Narrow(kFp16, 1.0 + 0x1p-11), 0x3c00);            // a tie, to even
  EXPECT_EQ(Narrow(kFp16, 1.0 + 0x1p-11 + 0x1p-50), 0x3c01);  // just above
  EXPECT_EQ(Narrow(kFp16, 1.0 + 0x3p-11), 0x3c02);            // a tie, to even, upwards
  EXPECT_EQ(Narrow(kFp16, 65519.99), 0x7bff);                 // below half a step over the largest
  EXPECT_EQ(Narrow(kFp16, 65520.0), 0x7c00);                  // half a step over: infinity
  EXPECT_EQ(Narrow(kFp16, 0x1p-25), 0x0000);                  // half the smallest, to even
  EXPECT_EQ(Narrow(kFp16, -0x1.8p-25), 0x8001);               // more than half the smallest
  EXPECT_EQ(Narrow(kFp16, 0x1.ffcp-15), 0x0400);              // the largest subnormal's upper tie
  EXPECT_EQ(Narrow(kBf16, 1.0 + 0x1p-8), 0x3f80);
  EXPECT_EQ(Narrow(kBf16, -1e39), 0xff80);
}

TEST(ContractTest, StaysWithinOneUlpOfTheReferencesTables) {
  for (const auto& [format, suffix] :
       {std::pair(kFp16, "fp16.u16"), std::pair(kBf16, "bf16.u16")}) {
    const Contract contract(format);
    const std::vector<uint16_t> f = Golden(std::string("forward_f_") + suffix);
    const std::vector<uint16_t> dg = Golden(std::string("backward_dg_") + suffix);
    const std::vector<uint16_t> de = Golden(std::string("backward_de_") + suffix);
    ASSERT_EQ(f.size(), 65536u);
    ASSERT_EQ(de.size(), dg.size() * 65536);
    const uint16_t one = Narrow(format, 1.0);
    Verdict forward;
    Verdict backward;
    for (size_t i = 0; i < de.size(); ++i) {
      const auto e = static_cast<uint16_t>(i % 65536);
      const uint16_t dw = dg[i / 65536];
      if (i < 65536) contract.CheckForward(e, one, f[i], forward);
      const uint16_t df = Narrow(format, Widen(format, dw) * Widen(format, f[e]));
      contract.CheckBackward(dw, e, one, f[e], df, de[i], backward);
    }
    EXPECT_EQ(forward.num_wrong, 0) << forward.first_wrong;
    EXPECT_LE(forward.num_differing, 3);
    EXPECT_EQ(backward.num_wrong, 0) << backward.first_wrong;
  }
}

TEST(ContractTest, RejectsAnHThatNoNeighbourOfFGives) {
  const Contract contract(kFp16);
  const uint16_t one = 0x3c00;
  EXPECT_EQ(contract.Silu(one), 0x39d9);  // 0.731058578630004...
  Verdict verdict;
  contract.CheckForward(one, one, 0x39da, verdict);
  EXPECT_EQ(verdict.num_wrong, 0);
  EXPECT_EQ(verdict.num_differing, 1);
  contract.CheckForward(one, one, 0x39db, verdict);
  EXPECT_EQ(verdict.num_wrong, 1);
  EXPECT_EQ(verdict.first_wrong, "h of element 1 (e = 0x3c00) is 0x39db, not 0x39d9");
  EXPECT_FALSE(verdict.ok());
}

TEST(ContractTest, RejectsHAndDfOfDifferentNeighboursAndADeTwoUlpOff) {
  const Contract contract(kFp16);
  const uint16_t one = 0x3c00;
  const uint16_t f = contract.Silu(one);
  const uint16_t de = contract.GateGradient(one, one, one);
  const auto wrong = [&](int h_off, int df_off, int de_off) {
    Verdict verdict;
    contract.CheckBackward(one, one, one, AtPlace(Place(f) + h_off), AtPlace(Place(f) + df_off),
                           AtPlace(Place(de) + de_off), verdict);
    return verdict.num_wrong;
  };
  EXPECT_EQ(wrong(0, 0, 0), 0);
  EXPECT_EQ(wrong(1, 1, -1), 0);
  EXPECT_EQ(wrong(1, -1, 0), 1);
  EXPECT_EQ(wrong(0, 2, 0), 1);
  EXPECT_EQ(wrong(0, 0, 2), 1);
}

TEST(ContractTest, RejectsNanForInfinityAndAZeroOfTheOtherSign) {
  const Contract contract(kFp16);
  Verdict verdict;
  contract.CheckForward(0x7c00, 0x3c00, 0x7c00, verdict);  // e = inf: f = inf
  contract.CheckForward(0xfc00, 0x3c00, 0x7e00, verdict);  // e = -inf: f = NaN
  contract.CheckForward(0x8001, 0x3c00, 0x8000, verdict);  // f is -0 by its tie to even
  EXPECT_EQ(verdict.num_wrong, 0) << verdict.first_wrong;
  contract.CheckForward(0x7c00, 0x3c00, 0x7e00, verdict);
  EXPECT_EQ(verdict.num_wrong, 1);
  contract.CheckForward(0x8001, 0x3c00, 0x0000, verdict);
  EXPECT_EQ(verdict.num_wrong, 2);
}

TEST(ContractTest, AnEmptyComparisonIsNotRight) { EXPECT_FALSE(Verdict{}.ok()); }

}  // namespace
}  // namespace swiglu::demo
