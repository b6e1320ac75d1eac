// SPDX-License-Identifier: Apache-2.0
//
// The results of a sweep: of equal loads that differ in the size of their requests.
#pragma once

#include <string>
#include <vector>

#include "absl/types/optional.h"
#include "client/bench/report.h"

namespace swiglu::bench {

// The figures of a load. A figure that does not exist is nullopt.
struct SweepPoint {
  int64_t request_bytes = 0;
  absl::optional<double> requests_per_s;
  absl::optional<double> p50_ms;
  absl::optional<double> p99_ms;
};

std::vector<SweepPoint> SweepPoints(const std::vector<Report>& reports);

// What the loads of `command` have in common, and a line for each.
std::string FormatSweepText(const CommandLine& command, const std::vector<Report>& reports);

// One JSON object without a line break: `sweep`, an array of what FormatJson gives.
std::string FormatSweepJson(const std::vector<Report>& reports);

// A drawing in SVG: the rate over the size, and beside it the latencies. Both scales of each are
// logarithmic. A load without a figure has no point. `title` stands above.
std::string DrawSweep(const std::string& title, const std::vector<SweepPoint>& points);

}  // namespace swiglu::bench
