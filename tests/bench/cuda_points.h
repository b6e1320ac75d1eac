// SPDX-License-Identifier: Apache-2.0
//
// The points that are measured on CUDA device 0.
#pragma once

#include <string>

#include "tests/bench/report.h"

namespace swiglu::bench {

// Measures the sections whose names contain `filter` (empty: all) and adds their rows. False, with
// a line on stderr, where there is no device.
bool MeasureCuda(const std::string& filter, Report& report);

}  // namespace swiglu::bench
