// SPDX-License-Identifier: Apache-2.0
//
// The points that are measured on the host's cores.
#pragma once

#include <string>

#include "tests/bench/report.h"

namespace swiglu::bench {

// Measures the sections whose names contain `filter` (empty: all) on `num_threads` threads and adds
// their rows.
void MeasureCpu(const std::string& filter, int num_threads, Report& report);

}  // namespace swiglu::bench
