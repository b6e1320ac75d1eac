// SPDX-License-Identifier: Apache-2.0
//
// The tests of every kernel, on a CUDA device in each kind of memory. That a bounded grid and host
// memory give the bits of an unbounded grid in device memory.
#include "tests/kernels/cuda_runner.h"

#include <gtest/gtest.h>

#include "tests/kernels/patterns.h"
#include "tests/kernels/problem.h"

namespace swiglu::kernels {
namespace {

INSTANTIATE_TEST_SUITE_P(Cuda, ArithmeticTest, testing::ValuesIn(EveryCudaRunner()), NameOfChoice);
INSTANTIATE_TEST_SUITE_P(Cuda, SegmentTest, testing::ValuesIn(EveryCudaRunner()), NameOfChoice);

class CudaRunnerTest : public KernelTest {};

INSTANTIATE_TEST_SUITE_P(Cuda, CudaRunnerTest, testing::ValuesIn(EveryCudaRunner()), NameOfChoice);

TEST_P(CudaRunnerTest, GivesTheBitsOfAnUnboundedGridInDeviceMemory) {
  CudaRunner plain(CudaMemory::kDevice, {});
  for (const Dtype dtype : kDtypes) {
    const Tensors inputs = RandomTensors(dtype, 3, 1000003, 40);
    const Tensors expected = kernels::Compute(plain, dtype, inputs);
    const Tensors outputs = Compute(dtype, inputs);
    // The very bits, those of NaNs too.
    for (size_t i = 0; i < 3; ++i) EXPECT_TRUE(outputs[i] == expected[i]) << "output " << i;
  }
}

}  // namespace
}  // namespace swiglu::kernels
