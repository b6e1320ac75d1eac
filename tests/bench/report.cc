// SPDX-License-Identifier: Apache-2.0
//
// The table, line by line, and the JSON file.
#include "tests/bench/report.h"

#include <algorithm>
#include <cstdio>
#include <fstream>

#include "nlohmann/json.hpp"

namespace swiglu::bench {

void Report::AddFact(const std::string& name, const std::string& value) {
  facts_[name] = value;
  std::printf("%-10s %s\n", name.c_str(), value.c_str());
}

void Report::Add(const Row& row) {
  if (rows_.empty() || rows_.back().section != row.section) {
    std::printf("\n%s\n%-9s %-5s %11s %-26s %11s %7s %9s  %s\n", row.section.c_str(), "op", "dtype",
                "n", "", "us", "spread", "GB/s", "speed over its baseline");
  }
  std::printf("%-9s %-5s %11lld %-26s %11.2f %6.1f%% %9.1f  %.3f of %s\n", row.op.c_str(),
              row.dtype.c_str(), static_cast<long long>(row.n), row.note.c_str(), row.us,
              100 * row.spread, row.gb_s, row.ratio, row.baseline.c_str());
  std::fflush(stdout);
  rows_.push_back(row);
}

bool Report::WriteJson(const std::string& path) const {
  nlohmann::ordered_json json;
  json["facts"] = facts_;
  for (const Row& row : rows_) {
    json["rows"].push_back({{"section", row.section},
                            {"op", row.op},
                            {"dtype", row.dtype},
                            {"n", row.n},
                            {"note", row.note},
                            {"us", row.us},
                            {"spread", row.spread},
                            {"gb_s", row.gb_s},
                            {"baseline", row.baseline},
                            {"ratio", row.ratio}});
  }
  std::ofstream file(path);
  file << json.dump(1) << "\n";
  file.close();
  if (!file) std::fprintf(stderr, "cannot write %s\n", path.c_str());
  return static_cast<bool>(file);
}

Summary Summarize(std::vector<double> times) {
  if (times.empty()) return {};
  std::sort(times.begin(), times.end());
  const size_t n = times.size();
  const double median = (times[(n - 1) / 2] + times[n / 2]) / 2;
  return {median, (times[n * 3 / 4] - times[n / 4]) / median};
}

}  // namespace swiglu::bench
