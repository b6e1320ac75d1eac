// SPDX-License-Identifier: Apache-2.0
//
// Reads the golden data of tests/golden, whose README says what they are.
#pragma once

#include <vector>

#include "swiglu/dtype.h"
#include "tests/kernels/patterns.h"

namespace swiglu::kernels {

// de of all 65,536 e with dw = dg and g = 1.
struct GoldenRow {
  uint32_t dg;
  Patterns de;
};

// Of 262,144 values of e: f with g = 1, de with dw = g = 1.
struct GoldenFp32 {
  Patterns e, f, de;
};

// Each fails the running test and gives zeros where a file is not whole. The folder is
// $SWIGLU_GOLDEN_DIR, or that of the source tree.
Patterns ReadGoldenForward(Dtype dtype);
std::vector<GoldenRow> ReadGoldenBackward(Dtype dtype);
GoldenFp32 ReadGoldenFp32();

}  // namespace swiglu::kernels
