// SPDX-License-Identifier: Apache-2.0
//
// What the numeric contract asks of every kernel to the last bit: products, special values, zeros
// and subnormals. How near f and de are is for each device's own tests.
#include <gtest/gtest.h>

#include <cmath>
#include <initializer_list>

#include "tests/kernels/kernel_test.h"
#include "tests/kernels/patterns.h"
#include "tests/kernels/problem.h"

namespace swiglu::kernels {
namespace {

GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(ArithmeticTest);

// The patterns of a few values, each the nearest to its literal.
Patterns Of(Dtype dtype, std::initializer_list<double> values) {
  Patterns patterns;
  for (const double value : values) patterns.push_back(Nearest(dtype, value));
  return patterns;
}

uint32_t Infinity(Dtype dtype) { return Nearest(dtype, HUGE_VAL); }
uint32_t SignBit(Dtype dtype) { return 1u << (8 * ElementBytes(dtype) - 1); }

// One NaN of every kind: quiet and signalling, of both signs.
Patterns Nans(Dtype dtype) {
  const uint32_t least = Infinity(dtype) + 1, largest = SignBit(dtype) - 1;
  return {least, largest, least | SignBit(dtype), largest | SignBit(dtype)};
}

// Values of e that differ, so that those of f do.
Patterns ManyGates(Dtype dtype) {
  if (dtype != Dtype::kFp32) return EveryPattern();
  return RandomPatterns(dtype, 65536, 1);
}

TEST_P(ArithmeticTest, RoundsHAndDfOnceFromTheirFactors) {
  for (const Dtype dtype : kDtypes) {
    const Patterns e = ManyGates(dtype);
    const Patterns f = Compute(dtype, {e, Repeated(e.size(), Nearest(dtype, 1.0))})[0];
    for (uint32_t seed = 10; seed < 26; ++seed) {
      const Patterns dw = RandomPatterns(dtype, e.size(), seed);
      const Patterns g = RandomPatterns(dtype, e.size(), seed + 100);
      Patterns h, df;
      for (size_t i = 0; i < e.size(); ++i) {
        h.push_back(Product(dtype, f[i], g[i]));
        df.push_back(Product(dtype, dw[i], f[i]));
      }
      const Tensors gradients = Compute(dtype, {dw, e, g});
      ASSERT_TRUE(SameTensor(dtype, Compute(dtype, {e, g})[0], h)) << "h of forward";
      ASSERT_TRUE(SameTensor(dtype, gradients[0], h)) << "h of backward";
      ASSERT_TRUE(SameTensor(dtype, gradients[1], df)) << "df";
    }
  }
}

// de depends on dw and g by their product alone, which is rounded to the dtype.
TEST_P(ArithmeticTest, RoundsDgOnceBeforeItUsesIt) {
  for (const Dtype dtype : kDtypes) {
    const Patterns e = ManyGates(dtype);
    const Patterns dw = RandomPatterns(dtype, e.size(), 2);
    const Patterns g = RandomPatterns(dtype, e.size(), 3);
    const Patterns one = Repeated(e.size(), Nearest(dtype, 1.0));
    Patterns dg;
    for (size_t i = 0; i < e.size(); ++i) dg.push_back(Product(dtype, dw[i], g[i]));
    EXPECT_TRUE(SameTensor(dtype, Compute(dtype, {dw, e, g})[2], Compute(dtype, {dg, e, one})[2]));
  }
}

TEST_P(ArithmeticTest, KeepsANanOfAnInputInItsElement) {
  constexpr size_t kElements = 40;
  for (const Dtype dtype : kDtypes) {
    const Tensors clean(3, Repeated(kElements, Nearest(dtype, 1.5)));
    const Tensors expected = Compute(dtype, clean);
    for (size_t k = 0; k < kElements; ++k) {
      for (size_t input = 0; input < 3; ++input) {
        Tensors inputs = clean;
        inputs[input][k] = Nans(dtype)[k % 4];
        Tensors outputs = Compute(dtype, inputs);
        // dw is no factor of h, nor g of df.
        EXPECT_EQ(IsNan(dtype, outputs[0][k]), input != 0);
        EXPECT_EQ(IsNan(dtype, outputs[1][k]), input != 2);
        EXPECT_TRUE(IsNan(dtype, outputs[2][k]));
        for (size_t output = 0; output < 3; ++output) {
          outputs[output][k] = expected[output][k];
          ASSERT_EQ(outputs[output], expected[output]) << "NaN at " << k << " of input " << input;
        }
      }
    }
  }
}

TEST_P(ArithmeticTest, KeepsANanOfForwardInItsElement) {
  for (const Dtype dtype : kDtypes) {
    for (const uint32_t nan : Nans(dtype)) {
      const uint32_t one = Nearest(dtype, 1.0), zero = 0;
      const Patterns h = Compute(dtype, {{zero, nan, zero, one}, {one, one, one, nan}})[0];
      EXPECT_EQ(h[0], zero);
      EXPECT_TRUE(IsNan(dtype, h[1]));
      EXPECT_EQ(h[2], zero);
      EXPECT_TRUE(IsNan(dtype, h[3]));
    }
  }
}

TEST_P(ArithmeticTest, GivesNanForMinusInfinity) {
  for (const Dtype dtype : kDtypes) {
    const Patterns one = Of(dtype, {1.0});
    const Tensors outputs = Compute(dtype, {one, Of(dtype, {-HUGE_VAL}), one});
    for (const Patterns& output : outputs) EXPECT_TRUE(IsNan(dtype, output[0]));
    EXPECT_TRUE(IsNan(dtype, Compute(dtype, {Of(dtype, {-HUGE_VAL}), one})[0][0]));
  }
}

TEST_P(ArithmeticTest, GivesInfinityForInfinity) {
  for (const Dtype dtype : kDtypes) {
    const Patterns e = Of(dtype, {HUGE_VAL, HUGE_VAL, HUGE_VAL});
    const Patterns h = Compute(dtype, {e, Of(dtype, {1.0, -2.0, 0.0})})[0];
    EXPECT_EQ(h[0], Infinity(dtype));
    EXPECT_EQ(h[1], Infinity(dtype) | SignBit(dtype));
    EXPECT_TRUE(IsNan(dtype, h[2]));  // infinity times 0
  }
}

TEST_P(ArithmeticTest, OverflowsToInfinity) {
  for (const Dtype dtype : kDtypes) {
    const Patterns largest = {Infinity(dtype) - 1};
    EXPECT_EQ(Compute(dtype, {largest, Of(dtype, {1.0})})[0][0], largest[0]);
    EXPECT_EQ(Compute(dtype, {largest, Of(dtype, {2.0})})[0][0], Infinity(dtype));
  }
}

TEST_P(ArithmeticTest, GivesMinusZeroWhereTheExponentialOverflows) {
  for (const Dtype dtype : kDtypes) {
    const Patterns e = Of(dtype, {-89.0, -100.0, -1000.0, -65504.0});
    const Patterns f = Compute(dtype, {e, Repeated(e.size(), Nearest(dtype, 1.0))})[0];
    EXPECT_EQ(f, Repeated(e.size(), SignBit(dtype)));
  }
  // Of the widest finite value too.
  EXPECT_EQ(Compute(Dtype::kBf16, {{0xff7f}, {0x3f80}})[0][0], 0x8000u);
  EXPECT_EQ(Compute(Dtype::kFp32, {{0xff7fffff}, {0x3f800000}})[0][0], 0x80000000u);
}

// -88.5: the sigmoid is subnormal, f is -3.2e-37.
TEST_P(ArithmeticTest, IsNotYetZeroBeforeTheExponentialOverflows) {
  for (const Dtype dtype : {Dtype::kBf16, Dtype::kFp32}) {
    const double f = Value(dtype, Compute(dtype, {Of(dtype, {-88.5}), Of(dtype, {1.0})})[0][0]);
    EXPECT_LT(f, -3.2e-37);
    EXPECT_GT(f, -3.4e-37);
  }
}

TEST_P(ArithmeticTest, KeepsTheSignOfZeros) {
  for (const Dtype dtype : kDtypes) {
    const uint32_t zero = 0, minus_zero = SignBit(dtype);
    const Patterns h = Compute(dtype, {Of(dtype, {0.0, -0.0, 0.0, -0.0, 1.0}),
                                       Of(dtype, {1.0, 1.0, -1.0, -1.0, -0.0})})[0];
    EXPECT_EQ(h, (Patterns{zero, minus_zero, minus_zero, zero, minus_zero}));

    const Tensors gradients =
        Compute(dtype, {Of(dtype, {-0.0, 0.0, 1.0, -1.0}), Of(dtype, {1.0, 1.0, -0.0, -0.0}),
                        Of(dtype, {1.0, -1.0, 1.0, 1.0})});
    EXPECT_EQ(gradients[1], (Patterns{minus_zero, zero, minus_zero, zero}));
    // At e = -0 the slope is 1 / 2.
    EXPECT_EQ(gradients[2], (Patterns{minus_zero, minus_zero, Nearest(dtype, 0.5),  //
                                      Nearest(dtype, -0.5)}));
  }
}

// SiLU(32) is 32 in every dtype, sigmoid(0) is 1 / 2.
TEST_P(ArithmeticTest, FlushesNoSubnormal) {
  for (const Dtype dtype : kDtypes) {
    const uint32_t one = Nearest(dtype, 1.0), e_of_32 = Nearest(dtype, 32.0);
    const uint32_t minus = SignBit(dtype);
    const Patterns e = {0x10, 0x10 | minus, e_of_32, e_of_32};
    const Patterns g = {one, one, 0x1, 0x3 | minus};
    const Patterns h = {0x8, 0x8 | minus, 0x20, 0x60 | minus};
    EXPECT_EQ(Compute(dtype, {e, g})[0], h);

    const Tensors gradients = Compute(dtype, {{0x3, one}, {e_of_32, 0}, {one, 0x10 | minus}});
    EXPECT_EQ(gradients[1][0], 0x60u);
    EXPECT_EQ(gradients[2][1], 0x8 | minus);
  }
}

}  // namespace
}  // namespace swiglu::kernels
