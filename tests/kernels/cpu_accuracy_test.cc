// SPDX-License-Identifier: Apache-2.0
//
// FP16 and BF16 on the CPU against the contract in float64 and against the golden data of the GPU:
// every value of e, on every instruction set that this machine has.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <string>

#include "tests/demo/evaluation.h"
#include "tests/demo/narrow_float.h"
#include "tests/kernels/cpu_runner.h"
#include "tests/kernels/golden.h"
#include "tests/kernels/patterns.h"
#include "tests/kernels/problem.h"

namespace swiglu::kernels {
namespace {

class CpuAccuracyTest : public KernelTest {};

INSTANTIATE_TEST_SUITE_P(Cpu, CpuAccuracyTest, testing::ValuesIn(EveryCpuTarget()), NameOfChoice);

uint16_t Low(uint32_t bits) { return static_cast<uint16_t>(bits); }

// How many places apart two patterns are; none if both are NaN, many if one is.
int PlacesApart(Dtype dtype, uint32_t a, uint32_t b) {
  if (IsNan(dtype, a) || IsNan(dtype, b)) return Same(dtype, a, b) ? 0 : 65536;
  return std::abs(demo::Place(Low(a)) - demo::Place(Low(b)));
}

int MostPlacesApart(Dtype dtype, const Patterns& a, const Patterns& b) {
  int most = 0;
  for (size_t i = 0; i < a.size(); ++i) most = std::max(most, PlacesApart(dtype, a[i], b[i]));
  return most;
}

TEST_P(CpuAccuracyTest, ForwardIsWithinOneUlpOfFloat64) {
  for (const Dtype dtype : kNarrowDtypes) {
    const demo::Contract contract(FormatOf(dtype));
    const uint32_t one = Nearest(dtype, 1.0);
    const Patterns f = Compute(dtype, {EveryPattern(), Repeated(65536, one)})[0];
    demo::Verdict verdict;
    for (uint32_t e = 0; e < 65536; ++e) {
      contract.CheckForward(Low(e), Low(one), Low(f[e]), verdict);
    }
    EXPECT_EQ(verdict.num_wrong, 0) << Name(dtype) << ": " << verdict.first_wrong;
    EXPECT_LE(verdict.num_differing, 8) << Name(dtype);
  }
}

TEST_P(CpuAccuracyTest, ForwardIsWithinOneUlpOfTheGoldenData) {
  for (const Dtype dtype : kNarrowDtypes) {
    const Patterns one = Repeated(65536, Nearest(dtype, 1.0));
    const Patterns f = Compute(dtype, {EveryPattern(), one})[0];
    EXPECT_LE(MostPlacesApart(dtype, f, ReadGoldenForward(dtype)), 1) << Name(dtype);
  }
}

TEST_P(CpuAccuracyTest, ForwardHasTheSignOfItsGate) {
  for (const Dtype dtype : kNarrowDtypes) {
    const Patterns one = Repeated(65536, Nearest(dtype, 1.0));
    const Patterns f = Compute(dtype, {EveryPattern(), one})[0];
    for (uint32_t e = 0; e < 65536; ++e) {
      if (IsNan(dtype, f[e])) continue;
      ASSERT_EQ(f[e] >> 15, e >> 15) << Name(dtype) << " " << e;
    }
  }
}

// With the golden values of dg as dw, and g = 1.
TEST_P(CpuAccuracyTest, BackwardIsWithinOneUlpOfFloat64AndOfTheGoldenData) {
  for (const Dtype dtype : kNarrowDtypes) {
    const demo::Contract contract(FormatOf(dtype));
    const uint32_t one = Nearest(dtype, 1.0);
    for (const GoldenRow& row : ReadGoldenBackward(dtype)) {
      const Tensors outputs =
          Compute(dtype, {Repeated(65536, row.dg), EveryPattern(), Repeated(65536, one)});
      demo::Verdict verdict;
      for (uint32_t e = 0; e < 65536; ++e) {
        contract.CheckBackward(Low(row.dg), Low(e), Low(one), Low(outputs[0][e]),
                               Low(outputs[1][e]), Low(outputs[2][e]), verdict);
      }
      EXPECT_EQ(verdict.num_wrong, 0) << Name(dtype) << ": " << verdict.first_wrong;
      EXPECT_LE(MostPlacesApart(dtype, outputs[2], row.de), 1) << Name(dtype) << " " << row.dg;
    }
  }
}

TEST_P(CpuAccuracyTest, BackwardOfRandomTensorsIsWithinOneUlpOfFloat64) {
  for (const Dtype dtype : kNarrowDtypes) {
    const demo::Contract contract(FormatOf(dtype));
    for (uint32_t seed = 20; seed < 30; ++seed) {
      const Patterns dw = RandomPatterns(dtype, 65536, seed);
      const Patterns g = RandomPatterns(dtype, 65536, seed + 100);
      const Tensors outputs = Compute(dtype, {dw, EveryPattern(), g});
      demo::Verdict verdict;
      for (uint32_t e = 0; e < 65536; ++e) {
        contract.CheckBackward(Low(dw[e]), Low(e), Low(g[e]), Low(outputs[0][e]),
                               Low(outputs[1][e]), Low(outputs[2][e]), verdict);
      }
      EXPECT_EQ(verdict.num_wrong, 0) << Name(dtype) << ": " << verdict.first_wrong;
    }
  }
}

}  // namespace
}  // namespace swiglu::kernels
