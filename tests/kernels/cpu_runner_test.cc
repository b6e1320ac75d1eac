// SPDX-License-Identifier: Apache-2.0
//
// The tests of every kernel, on every instruction set that this machine has.
#include "tests/kernels/cpu_runner.h"

#include <gtest/gtest.h>

namespace swiglu::kernels {
namespace {

INSTANTIATE_TEST_SUITE_P(Cpu, ArithmeticTest, testing::ValuesIn(EveryCpuTarget()), NameOfChoice);
INSTANTIATE_TEST_SUITE_P(Cpu, SegmentTest, testing::ValuesIn(EveryCpuTarget()), NameOfChoice);

TEST(CpuTargetTest, IsTheBestThatTheMachineHas) {
  EXPECT_STREQ(CpuTarget(), hwy::TargetName(hwy::SupportedAndGeneratedTargets()[0]));
}

}  // namespace
}  // namespace swiglu::kernels
