// SPDX-License-Identifier: Apache-2.0
//
// Computes ranks in whole numbers, so that no percentile is off by one request.
#include "client/bench/histogram_text.h"

#include <cmath>
#include <vector>

#include "absl/strings/str_format.h"
#include "client/bench/figures.h"

namespace swiglu::bench {
namespace {

// A percentile of the table: all but `missing` of `parts` equal parts of the requests.
struct Level {
  int64_t missing;
  int64_t parts;

  double Fraction() const { return 1 - static_cast<double>(missing) / static_cast<double>(parts); }
  double OneOfHowMany() const { return static_cast<double>(parts) / static_cast<double>(missing); }
  // The fewest of `count` requests that are at least this share, rounded up.
  int64_t Rank(int64_t count) const {
    return count - count / parts * missing - count % parts * missing / parts;
  }
};

// The percentile number `k`: 0, 10, 20, 30, 40, 50, 55, 60, 65, 70, 75, 77.5 and so on.
Level LevelOf(int k) { return {10 - k % 5, int64_t{10} << (k / 5)}; }

std::string TableOf(const LatencyHistogram& latency) {
  std::string text;
  const std::vector<LatencyHistogram::Bucket> buckets = latency.Filled();
  auto next = buckets.begin();
  int64_t seen = 0;
  for (int k = 0; seen < latency.count(); ++k) {
    const Level level = LevelOf(k);
    while (seen == 0 || seen < level.Rank(latency.count())) seen += (next++)->count;
    absl::StrAppendFormat(&text, "%12.6f %2.12f %10d %14.2f\n", Ms((next - 1)->value),
                          level.Fraction(), seen, level.OneOfHowMany());
  }
  if (seen > 0) {
    absl::StrAppendFormat(&text, "%12.6f %2.12f %10d\n", Ms(latency.max()), 1.0, seen);
  }
  return text;
}

double StandardDeviationMs(const LatencyHistogram& latency) {
  double sum = 0;
  for (const LatencyHistogram::Bucket& bucket : latency.Filled()) {
    const double distance = Ms(bucket.value) - Ms(latency.Mean());
    sum += distance * distance * static_cast<double>(bucket.count);
  }
  return latency.count() == 0 ? 0 : std::sqrt(sum / static_cast<double>(latency.count()));
}

}  // namespace

std::string FormatHistogram(const LatencyHistogram& latency) {
  return absl::StrFormat(
      "%12s %14s %10s %14s\n\n%s"
      "#[Mean    = %12.6f, StdDeviation   = %12.6f]\n"
      "#[Max     = %12.6f, Total count    = %12d]\n"
      "#[Buckets = %12d, SubBuckets     = %12d]\n",
      "Value", "Percentile", "TotalCount", "1/(1-Percentile)", TableOf(latency), Ms(latency.Mean()),
      StandardDeviationMs(latency), Ms(latency.max()), latency.count(),
      LatencyHistogram::kMaxBits - LatencyHistogram::kPrecisionBits,
      2 << LatencyHistogram::kPrecisionBits);
}

}  // namespace swiglu::bench
