// SPDX-License-Identifier: Apache-2.0
//
// The fixtures of what every kernel owes, whatever it runs on. The tests are in arithmetic_test.cc
// and segment_test.cc; each test program names the runners that it has.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <ostream>
#include <string>

#include "tests/kernels/problem.h"
#include "tests/kernels/runner.h"

namespace swiglu::kernels {

// A runner, or why there is none.
struct CreatedRunner {
  std::unique_ptr<Runner> runner;
  std::string missing;
};

// How a test gets its runner.
struct RunnerChoice {
  std::string name;  // letters, digits and underscores
  CreatedRunner (*create)(int64_t argument);
  int64_t argument;
};

// What GoogleTest prints of a parameter, and appends to a test's name.
inline void PrintTo(const RunnerChoice& choice, std::ostream* out) { *out << choice.name; }
inline std::string NameOfChoice(const testing::TestParamInfo<RunnerChoice>& info) {
  return info.param.name;
}

// Has the runner of its parameter, or skips.
class KernelTest : public testing::TestWithParam<RunnerChoice> {
 protected:
  void SetUp() override {
    CreatedRunner created = GetParam().create(GetParam().argument);
    if (created.runner == nullptr) GTEST_SKIP() << created.missing;
    runner_ = std::move(created.runner);
  }

  Tensors Compute(Dtype dtype, const Tensors& inputs, const Layout& layout = {}) {
    return kernels::Compute(*runner_, dtype, inputs, layout);
  }

  std::unique_ptr<Runner> runner_;
};

class ArithmeticTest : public KernelTest {};
class SegmentTest : public KernelTest {};

}  // namespace swiglu::kernels
