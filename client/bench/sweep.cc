// SPDX-License-Identifier: Apache-2.0
//
// The table of a sweep.
#include "client/bench/sweep.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/bench/figures.h"
#include "server/base/byte_size.h"

namespace swiglu::bench {

std::vector<SweepPoint> SweepPoints(const std::vector<Report>& reports) {
  std::vector<SweepPoint> points;
  for (const Report& report : reports) {
    const LatencyHistogram latency = report.tally.Total().latency;
    SweepPoint point;
    point.request_bytes = report.command.load.request_bytes.front().bytes;
    if (latency.count() > 0) {
      point.requests_per_s = Ratio(static_cast<double>(latency.count()), Seconds(report.elapsed));
      point.p50_ms = Ms(latency.Percentile(0.5));
      point.p99_ms = Ms(latency.Percentile(0.99));
    }
    points.push_back(point);
  }
  return points;
}

std::string FormatSweepText(const CommandLine& command, const std::vector<Report>& reports) {
  std::string text = absl::StrCat(FormatLoad(command), "\n");
  absl::StrAppendFormat(&text, "%-8s %12s %10s %10s %10s %10s %8s\n", "size", "requests/s",
                        "GB/s in", "GB/s out", "p50 ms", "p99 ms", "errors");
  const std::vector<SweepPoint> points = SweepPoints(reports);
  for (size_t k = 0; k < reports.size(); ++k) {
    const SizeTally total = reports[k].tally.Total();
    const double seconds = Seconds(reports[k].elapsed);
    absl::StrAppendFormat(
        &text, "%-8s %12s %10s %10s %10s %10s %8d%s\n",
        server::FormatByteSize(points[k].request_bytes), Show(points[k].requests_per_s, 2),
        Show(Ratio(Gb(total.bytes_in), seconds), 3), Show(Ratio(Gb(total.bytes_out), seconds), 3),
        Show(points[k].p50_ms, 3), Show(points[k].p99_ms, 3), reports[k].tally.NumFailed(),
        reports[k].was_stopped ? "  stopped before its end" : "");
  }
  return text;
}

std::string FormatSweepJson(const std::vector<Report>& reports) {
  const std::string loads = absl::StrJoin(
      reports, ",",
      [](std::string* text, const Report& report) { absl::StrAppend(text, FormatJson(report)); });
  return absl::StrCat("{\"sweep\":[", loads, "]}");
}

}  // namespace swiglu::bench
