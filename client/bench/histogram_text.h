// SPDX-License-Identifier: Apache-2.0
//
// The distribution of latencies as a text that the tools of HdrHistogram read.
#pragma once

#include <string>

#include "client/bench/latency_histogram.h"

namespace swiglu::bench {

// The percentile distribution of `latency` in the text format of HdrHistogram, in milliseconds: a
// table of values, percentiles, and counts up to the value, and then the mean, the standard
// deviation, the maximum and the total count. The table has five percentiles for each halving of
// the distance to 100 %. Each value is that of LatencyHistogram::Percentile; the last one is the
// maximum.
std::string FormatHistogram(const LatencyHistogram& latency);

}  // namespace swiglu::bench
