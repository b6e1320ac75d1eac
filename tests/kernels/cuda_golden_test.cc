// SPDX-License-Identifier: Apache-2.0
//
// The CUDA kernels against the golden data, bit for bit: what the Triton kernel gave on an H100.
#include <gtest/gtest.h>

#include "tests/kernels/cuda_runner.h"
#include "tests/kernels/golden.h"
#include "tests/kernels/patterns.h"
#include "tests/kernels/problem.h"

namespace swiglu::kernels {
namespace {

class CudaGoldenTest : public KernelTest {};

INSTANTIATE_TEST_SUITE_P(Cuda, CudaGoldenTest, testing::ValuesIn(EveryCudaRunner()), NameOfChoice);

TEST_P(CudaGoldenTest, ForwardHasTheGoldenBitsForEveryGate) {
  for (const Dtype dtype : kNarrowDtypes) {
    const Patterns one = Repeated(65536, Nearest(dtype, 1.0));
    EXPECT_TRUE(SameTensor(dtype, Compute(dtype, {EveryPattern(), one})[0],  //
                           ReadGoldenForward(dtype)));
  }
}

TEST_P(CudaGoldenTest, BackwardHasTheGoldenBitsForEveryGateAndGradient) {
  for (const Dtype dtype : kNarrowDtypes) {
    const Patterns f = ReadGoldenForward(dtype);
    const Patterns one = Repeated(65536, Nearest(dtype, 1.0));
    for (const GoldenRow& row : ReadGoldenBackward(dtype)) {
      const Tensors outputs = Compute(dtype, {Repeated(65536, row.dg), EveryPattern(), one});
      EXPECT_TRUE(SameTensor(dtype, outputs[0], f)) << "h, dg = " << row.dg;
      EXPECT_TRUE(SameTensor(dtype, outputs[2], row.de)) << "de, dg = " << row.dg;
    }
  }
}

// 1 * dg, not dg * 1: the other factor.
TEST_P(CudaGoldenTest, BackwardHasTheGoldenBitsWithTheGradientInG) {
  for (const Dtype dtype : kNarrowDtypes) {
    const Patterns one = Repeated(65536, Nearest(dtype, 1.0));
    for (const GoldenRow& row : ReadGoldenBackward(dtype)) {
      const Tensors outputs = Compute(dtype, {one, EveryPattern(), Repeated(65536, row.dg)});
      EXPECT_TRUE(SameTensor(dtype, outputs[1], ReadGoldenForward(dtype))) << "df, g = " << row.dg;
      EXPECT_TRUE(SameTensor(dtype, outputs[2], row.de)) << "de, g = " << row.dg;
    }
  }
}

TEST_P(CudaGoldenTest, Fp32HasTheGoldenBits) {
  const GoldenFp32 golden = ReadGoldenFp32();
  const Patterns one = Repeated(golden.e.size(), Nearest(Dtype::kFp32, 1.0));
  EXPECT_TRUE(SameTensor(Dtype::kFp32, Compute(Dtype::kFp32, {golden.e, one})[0], golden.f));
  const Tensors outputs = Compute(Dtype::kFp32, {one, golden.e, one});
  EXPECT_TRUE(SameTensor(Dtype::kFp32, outputs[0], golden.f)) << "h";
  EXPECT_TRUE(SameTensor(Dtype::kFp32, outputs[1], golden.f)) << "df";
  EXPECT_TRUE(SameTensor(Dtype::kFp32, outputs[2], golden.de)) << "de";
}

// Products with the golden f, without a call of ours that gives f.
TEST_P(CudaGoldenTest, ForwardOfRandomUpsIsTheProductWithTheGoldenBits) {
  for (const Dtype dtype : kNarrowDtypes) {
    const Patterns f = ReadGoldenForward(dtype);
    for (uint32_t seed = 50; seed < 58; ++seed) {
      const Patterns g = RandomPatterns(dtype, 65536, seed);
      Patterns h;
      for (uint32_t e = 0; e < 65536; ++e) h.push_back(Product(dtype, f[e], g[e]));
      EXPECT_TRUE(SameTensor(dtype, Compute(dtype, {EveryPattern(), g})[0], h));
    }
  }
}

}  // namespace
}  // namespace swiglu::kernels
