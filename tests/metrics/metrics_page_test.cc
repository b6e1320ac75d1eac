// SPDX-License-Identifier: Apache-2.0
//
// The whole page: exactly the metrics that are promised, all there from the start, gauges sampled
// when it is read.
#include "server/metrics/metrics_page.h"

#include <sys/resource.h>
#include <time.h>

#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_join.h"
#include "gtest/gtest.h"
#include "tests/metrics/parsed_page.h"

namespace swiglu::server {
namespace {

const BuildInfo kBuild = {"1.2.3", "abcdef", "13.0"};

std::vector<std::string> GoldenLines() {
  std::vector<std::string> lines;
  std::ifstream file(GOLDEN_METRICS);
  for (std::string line; std::getline(file, line);) {
    if (!line.empty() && line[0] != '#') lines.push_back(line);
  }
  return lines;
}

TEST(MetricsPageTest, ShowsExactlyTheGoldenMetrics) {
  PrometheusObserver observer;
  Gauges gauges;
  gauges.devices.push_back({0, nullptr});
  const MetricsPage page(&observer, gauges, kBuild);
  const std::vector<std::string> outline = ParsePage(page.Render()).outline;
  EXPECT_EQ(outline, GoldenLines())
      << "The page has changed. Users build dashboards on these names; if it is meant, note it in "
         "CHANGELOG.md and let "
      << GOLDEN_METRICS << " say:\n"
      << absl::StrJoin(outline, "\n");
}

TEST(MetricsPageTest, EverySeriesIsZeroAtTheStart) {
  PrometheusObserver observer;
  Gauges gauges;
  gauges.devices.push_back({0, nullptr});
  const MetricsPage page(&observer, gauges, kBuild);
  for (const auto& [series, value] : ParsePage(page.Render()).values) {
    if (absl::StartsWith(series, "process_") || absl::StartsWith(series, "swiglu_build_info")) {
      continue;
    }
    EXPECT_EQ(value, 0) << series;
  }
}

TEST(MetricsPageTest, GaugesAreSampledEachTime) {
  PrometheusObserver observer;
  double base = 0;
  Gauges gauges;
  gauges.queued_requests = [&] { return base + 1; };
  gauges.inflight_requests = [&] { return base + 2; };
  gauges.memory_budget_bytes = [&] { return base + 3; };
  for (size_t i = 0; i < gauges.memory_used_bytes.size(); ++i) {
    gauges.memory_used_bytes[i] = [&base, i] { return base + 4 + static_cast<double>(i); };
  }
  gauges.devices.push_back({kCpuDevice, [&] { return base + 8; }});
  gauges.devices.push_back({3, [&] { return base + 9; }});
  gauges.ready = [] { return 1; };
  const MetricsPage page(&observer, gauges, kBuild);
  for (const double now : {100.0, 8589934592.0}) {
    base = now;
    ParsedPage parsed = ParsePage(page.Render());
    EXPECT_EQ(parsed.values["swiglu_queued_requests"], base + 1);
    EXPECT_EQ(parsed.values["swiglu_inflight_requests"], base + 2);
    EXPECT_EQ(parsed.values["swiglu_memory_budget_bytes"], base + 3);
    EXPECT_EQ(parsed.values["swiglu_memory_used_bytes{kind=\"receive\"}"], base + 4);
    EXPECT_EQ(parsed.values["swiglu_memory_used_bytes{kind=\"staging\"}"], base + 5);
    EXPECT_EQ(parsed.values["swiglu_memory_used_bytes{kind=\"response\"}"], base + 6);
    EXPECT_EQ(parsed.values["swiglu_memory_used_bytes{kind=\"region\"}"], base + 7);
    EXPECT_EQ(parsed.values["swiglu_device_memory_used_bytes{device=\"cpu\"}"], base + 8);
    EXPECT_EQ(parsed.values["swiglu_device_memory_used_bytes{device=\"3\"}"], base + 9);
    EXPECT_EQ(parsed.values["swiglu_ready"], 1);
  }
}

TEST(MetricsPageTest, BuildInfoNamesTheBuild) {
  PrometheusObserver observer;
  const MetricsPage page(&observer, {}, kBuild);
  EXPECT_EQ(ParsePage(page.Render())
                .values["swiglu_build_info{commit=\"abcdef\",cuda=\"13.0\",version=\"1.2.3\"}"],
            1);
}

TEST(MetricsPageTest, CountersOfTheObserverAreOnIt) {
  PrometheusObserver observer;
  const MetricsPage page(&observer, {}, kBuild);
  observer.RequestRejected(Rejection::kDraining);
  EXPECT_EQ(ParsePage(page.Render()).values["swiglu_rejected_total{reason=\"draining\"}"], 1);
}

TEST(MetricsPageTest, ProcessFiguresAreThoseOfThisProcess) {
  PrometheusObserver observer;
  const MetricsPage page(&observer, {}, kBuild);
  ParsedPage before = ParsePage(page.Render());
  EXPECT_GT(before.values["process_cpu_seconds_total"], 0);
  EXPECT_GT(before.values["process_resident_memory_bytes"], 1 << 20);
  EXPECT_GT(before.values["process_virtual_memory_bytes"],
            before.values["process_resident_memory_bytes"]);
  rlimit limit{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
  EXPECT_EQ(before.values["process_max_fds"], static_cast<double>(limit.rlim_cur));
  // The kernel's idea of the time of boot may be off by seconds; a wrong unit or field is off by
  // far more.
  EXPECT_NEAR(before.values["process_start_time_seconds"], static_cast<double>(time(nullptr)),
              3600);

  const std::ifstream one_more("/proc/self/stat");
  EXPECT_EQ(ParsePage(page.Render()).values["process_open_fds"],
            before.values["process_open_fds"] + 1);
}

}  // namespace
}  // namespace swiglu::server
