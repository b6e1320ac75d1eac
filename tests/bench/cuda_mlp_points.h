// SPDX-License-Identifier: Apache-2.0
//
// The points of a whole MLP on CUDA device 0.
#pragma once

#include "tests/bench/cuda_timer.h"
#include "tests/bench/report.h"

namespace swiglu::bench {

// Measures MLPs of hidden size 4096 and intermediate sizes 11008 and 14336 in BF16, with 1 to 8192
// tokens, and adds the rows: "forward", "backward" to the input, and "gradients", which is backward
// to the input and the weights. GB/s are the bytes of the weights and of their gradients alone;
// `copy_gb_s` is the rate of a large copy on the device, read and written.
void MeasureCudaMlp(const Timer& timer, double copy_gb_s, Report& report);

}  // namespace swiglu::bench
