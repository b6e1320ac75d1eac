// SPDX-License-Identifier: Apache-2.0
//
// The points of a whole MLP on the host's cores.
#pragma once

#include "tests/bench/report.h"

namespace swiglu::bench {

// Measures an MLP of hidden size 4096 and intermediate size 11008 on `num_threads` threads, with 1,
// 64 and 512 tokens, and adds the rows. Takes 2 GiB of memory.
void MeasureMlp(int num_threads, Report& report);

}  // namespace swiglu::bench
