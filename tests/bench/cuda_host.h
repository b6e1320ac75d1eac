// SPDX-License-Identifier: Apache-2.0
//
// What the CUDA benchmarks share: they measure device 0 and end at the first error.
#pragma once

#include <cuda_runtime_api.h>

#include "tests/bench/report.h"

namespace swiglu::bench {

// Ends the program with a line on stderr unless `error` is cudaSuccess.
void Check(cudaError_t error);

// Adds the fact "gpu": device 0 and its driver. False, with a line on stderr, where there is none.
bool AddDeviceFact(Report& report);

}  // namespace swiglu::bench
