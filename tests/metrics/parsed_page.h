// SPDX-License-Identifier: Apache-2.0
//
// Prometheus's text format, read back for tests.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "prometheus/metric_family.h"

namespace swiglu::server {

struct ParsedPage {
  // `name{label="value",...}`, labels in order of their names, to the value.
  std::map<std::string, double> values;
  // `name{label,label} type series-count`, one for each metric, in order of names; a histogram's
  // sample lines count as one series and `le` is no label of it.
  std::vector<std::string> outline;
};

// The series on the page. A line that is not in the format is a test failure.
ParsedPage ParsePage(const std::string& page);

std::string Serialize(const std::vector<prometheus::MetricFamily>& families);

}  // namespace swiglu::server
