// SPDX-License-Identifier: Apache-2.0
//
// The whole page: exactly the metrics that are promised, all there from the start, gauges sampled
// when it is read.
#include "server/metrics/metrics_page.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>

#include <fstream>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_join.h"
#include "gtest/gtest.h"
#include "tests/metrics/example_gpu.h"
#include "tests/metrics/example_mlp.h"
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
  PrometheusObserver observer{ModelRegistry(ExampleMlpModels())};
  const MetricsPage page(&observer, GaugesOfOneGpuAndMlp(), kBuild);
  const std::vector<std::string> outline = ParsePage(page.Render()).outline;
  EXPECT_EQ(outline, GoldenLines())
      << "The page has changed. Users build dashboards on these names; if it is meant, note it in "
         "CHANGELOG.md and let "
      << GOLDEN_METRICS << " say:\n"
      << absl::StrJoin(outline, "\n");
}

TEST(MetricsPageTest, EverySeriesIsZeroAtTheStart) {
  PrometheusObserver observer{ModelRegistry(ExampleMlpModels())};
  const MetricsPage page(
      &observer, GaugesOfOneGpuAndMlp([] { return std::nullopt; }, [] { return MlpFigures(); }),
      kBuild);
  for (const auto& [series, value] : ParsePage(page.Render()).values) {
    if (absl::StartsWith(series, "process_") || absl::StartsWith(series, "swiglu_build_info")) {
      continue;
    }
    EXPECT_EQ(value, 0) << series;
  }
}

TEST(MetricsPageTest, GaugesAreSampledEachTime) {
  PrometheusObserver observer{ModelRegistry()};
  double base = 0;
  Gauges gauges;
  gauges.queued_requests = [&] { return base + 1; };
  gauges.queue_limit_requests = [&] { return base + 10; };
  gauges.inflight_requests = [&] { return base + 2; };
  gauges.memory_budget_bytes = [&] { return base + 3; };
  for (size_t i = 0; i < gauges.memory_used_bytes.size(); ++i) {
    gauges.memory_used_bytes[i] = [&base, i] { return base + 4 + static_cast<double>(i); };
  }
  gauges.devices.push_back({kCpuDevice, [&] { return base + 8; }});
  gauges.devices.push_back({3, [&] { return base + 9; }});
  gauges.devices.push_back({4, [] { return std::nullopt; }});
  gauges.slab_pool = {"host", {[&] { return base + 11; }, [&] { return base + 12; }}};
  gauges.ended_connections = {[&] { return base + 17; }, [&] { return base + 18; }};
  gauges.ready = [&] { return base + 13; };
  gauges.live = [&] { return base + 14; };
  gauges.draining = [&] { return base + 15; };
  gauges.dropped_log_lines = [&] { return base + 16; };
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
    EXPECT_EQ(parsed.values.count("swiglu_device_memory_used_bytes{device=\"4\"}"), 0u);
    EXPECT_EQ(parsed.values["swiglu_queue_limit_requests"], base + 10);
    EXPECT_EQ(parsed.values["swiglu_slab_pool_bytes{pool=\"host\",state=\"used\"}"], base + 11);
    EXPECT_EQ(parsed.values["swiglu_slab_pool_bytes{pool=\"host\",state=\"free\"}"], base + 12);
    EXPECT_EQ(parsed.values["swiglu_ready"], base + 13);
    EXPECT_EQ(parsed.values["swiglu_live"], base + 14);
    EXPECT_EQ(parsed.values["swiglu_draining"], base + 15);
    EXPECT_EQ(parsed.values["swiglu_dropped_log_lines_total"], base + 16);
    EXPECT_EQ(parsed.values["swiglu_ended_connections_total{reason=\"resets\"}"], base + 17);
    EXPECT_EQ(parsed.values["swiglu_ended_connections_total{reason=\"frames\"}"], base + 18);
  }
}

TEST(MetricsPageTest, RegionsAreSampledEachTime) {
  PrometheusObserver observer{ModelRegistry()};
  double base = 0;
  Gauges gauges;
  gauges.regions = {[&] { return base + 1; }, [&] { return base + 2; }};
  gauges.region_size_bytes = {[&] { return base + 3; }, [&] { return base + 4; }};
  gauges.region_limit_bytes = [&] { return base + 5; };
  const MetricsPage page(&observer, gauges, kBuild);
  for (const double now : {100.0, 8589934592.0}) {
    base = now;
    ParsedPage parsed = ParsePage(page.Render());
    EXPECT_EQ(parsed.values["swiglu_regions{memory=\"system\"}"], base + 1);
    EXPECT_EQ(parsed.values["swiglu_regions{memory=\"cuda\"}"], base + 2);
    EXPECT_EQ(parsed.values["swiglu_region_size_bytes{memory=\"system\"}"], base + 3);
    EXPECT_EQ(parsed.values["swiglu_region_size_bytes{memory=\"cuda\"}"], base + 4);
    EXPECT_EQ(parsed.values["swiglu_region_limit_bytes"], base + 5);
  }
}

TEST(MetricsPageTest, EveryFaultOfARegionHasItsName) {
  const std::vector<std::pair<RegionFault, std::string>> faults = {
      {RegionFault::kDisabled, "disabled"},
      {RegionFault::kName, "name"},
      {RegionFault::kNameInUse, "name_in_use"},
      {RegionFault::kTooMany, "too_many"},
      {RegionFault::kTooLarge, "too_large"},
      {RegionFault::kPinnedLimit, "pinned_limit"},
      {RegionFault::kSize, "size"},
      {RegionFault::kOffset, "offset"},
      {RegionFault::kKey, "key"},
      {RegionFault::kHandle, "handle"},
      {RegionFault::kDevice, "device"},
      {RegionFault::kNoMemory, "no_memory"}};
  PrometheusObserver observer{ModelRegistry()};
  for (const auto& [fault, name] : faults) {
    Gauges gauges;
    gauges.refused_regions[static_cast<size_t>(fault)] = [] { return 3; };
    const MetricsPage page(&observer, gauges, kBuild);
    std::map<std::string, double> counted;
    for (const auto& [series, value] : ParsePage(page.Render()).values) {
      if (absl::StartsWith(series, "swiglu_refused_regions_total") && value != 0) {
        counted[series] = value;
      }
    }
    EXPECT_EQ(counted, (std::map<std::string, double>{
                           {"swiglu_refused_regions_total{reason=\"" + name + "\"}", 3}}));
  }
}

TEST(MetricsPageTest, GpuFiguresAreOnItUnderBothNames) {
  PrometheusObserver observer{ModelRegistry()};
  const MetricsPage page(&observer, GaugesOfOneGpu(), kBuild);
  std::map<std::string, double> of_gpus;
  for (const auto& [series, value] : ParsePage(page.Render()).values) {
    if (absl::StrContains(series, "gpu")) of_gpus[series] = value;
  }
  EXPECT_EQ(
      of_gpus,
      (std::map<std::string, double>{
          {"nv_energy_consumption{gpu_uuid=\"GPU-01234567-89ab-cdef-0123-456789abcdef\"}", 98765},
          {"nv_gpu_memory_total_bytes{gpu_uuid=\"GPU-01234567-89ab-cdef-0123-456789abcdef\"}",
           8e10},
          {"nv_gpu_memory_used_bytes{gpu_uuid=\"GPU-01234567-89ab-cdef-0123-456789abcdef\"}", 1e9},
          {"nv_gpu_power_limit{gpu_uuid=\"GPU-01234567-89ab-cdef-0123-456789abcdef\"}", 700},
          {"nv_gpu_power_usage{gpu_uuid=\"GPU-01234567-89ab-cdef-0123-456789abcdef\"}", 123.5},
          {"nv_gpu_utilization{gpu_uuid=\"GPU-01234567-89ab-cdef-0123-456789abcdef\"}", 0.5},
          {"swiglu_gpu_clock_throttled{device=\"0\",reason=\"hardware\"}", 0},
          {"swiglu_gpu_clock_throttled{device=\"0\",reason=\"power\"}", 1},
          {"swiglu_gpu_clock_throttled{device=\"0\",reason=\"thermal\"}", 0},
          {"swiglu_gpu_ecc_errors_total{device=\"0\",kind=\"corrected\"}", 3},
          {"swiglu_gpu_ecc_errors_total{device=\"0\",kind=\"uncorrected\"}", 2},
          {"swiglu_gpu_energy_joules_total{device=\"0\"}", 98765},
          {"swiglu_gpu_memory_total_bytes{device=\"0\"}", 8e10},
          {"swiglu_gpu_memory_used_bytes{device=\"0\"}", 1e9},
          {"swiglu_gpu_power_limit_watts{device=\"0\"}", 700},
          {"swiglu_gpu_power_watts{device=\"0\"}", 123.5},
          {"swiglu_gpu_temperature_celsius{device=\"0\"}", 41},
          {"swiglu_gpu_utilization_ratio{device=\"0\"}", 0.5},
      }));
}

TEST(MetricsPageTest, EachReasonOfThrottlingIsItsOwn) {
  GpuFigures figures;
  figures.throttling = ClockThrottling();
  const auto reasons = [&figures] {
    PrometheusObserver observer{ModelRegistry()};
    const MetricsPage page(&observer, GaugesOfOneGpu([&] { return figures; }), kBuild);
    std::string set;
    for (const auto& [series, value] : ParsePage(page.Render()).values) {
      if (absl::StartsWith(series, "swiglu_gpu_") && value == 1) set += series;
    }
    return set;
  };
  EXPECT_EQ(reasons(), "");
  figures.throttling = ClockThrottling{.thermal = true};
  EXPECT_EQ(reasons(), "swiglu_gpu_clock_throttled{device=\"0\",reason=\"thermal\"}");
  figures.throttling = ClockThrottling{.power = true};
  EXPECT_EQ(reasons(), "swiglu_gpu_clock_throttled{device=\"0\",reason=\"power\"}");
  figures.throttling = ClockThrottling{.hardware = true};
  EXPECT_EQ(reasons(), "swiglu_gpu_clock_throttled{device=\"0\",reason=\"hardware\"}");
}

TEST(MetricsPageTest, FiguresOfAnMlpAreOnIt) {
  PrometheusObserver observer{ModelRegistry()};
  Gauges gauges = GaugesOfOneGpuAndMlp();
  gauges.devices.push_back({2, nullptr});
  const MetricsPage page(&observer, gauges, kBuild);
  std::map<std::string, double> of_mlp;
  for (const auto& [series, value] : ParsePage(page.Render()).values) {
    if (absl::StrContains(series, "mlp")) of_mlp[series] = value;
  }
  EXPECT_EQ(of_mlp,
            (std::map<std::string, double>{
                {"swiglu_mlp_last_load_duration_seconds{model=\"mlp_NAME\"}", 1.5},
                {"swiglu_mlp_last_load_timestamp_seconds{model=\"mlp_NAME\"}", 1'700'000'000.25},
                {"swiglu_mlp_load_size_bytes{model=\"mlp_NAME\"}", 40'000},
                {"swiglu_mlp_loaded_bytes{model=\"mlp_NAME\"}", 30'000},
                {"swiglu_mlp_loading{model=\"mlp_NAME\"}", 1},
                {"swiglu_mlp_loads_total{model=\"mlp_NAME\",result=\"success\"}", 4},
                {"swiglu_mlp_loads_total{model=\"mlp_NAME\",result=\"failure\"}", 2},
                {"swiglu_mlp_loads_total{model=\"mlp_NAME\",result=\"cancelled\"}", 3},
                {"swiglu_mlp_weight_bytes{device=\"0\",model=\"mlp_NAME\"}", 84'000},
                {"swiglu_mlp_weight_bytes{device=\"1\",model=\"mlp_NAME\"}", 41'000},
                {"swiglu_mlp_weight_bytes{device=\"2\",model=\"mlp_NAME\"}", 0},
            }));
}

TEST(MetricsPageTest, EachMlpHasItsOwnSeries) {
  PrometheusObserver observer{ModelRegistry()};
  Gauges gauges = GaugesOfOneGpuAndMlp();
  int64_t loaded_bytes = 5;
  gauges.mlps.push_back(
      {"mlp_b", [&] { return MlpFigures{.loads = {.loaded_bytes = loaded_bytes}}; }});
  const MetricsPage page(&observer, gauges, kBuild);
  loaded_bytes = 6;
  ParsedPage parsed = ParsePage(page.Render());
  EXPECT_EQ(parsed.values["swiglu_mlp_loaded_bytes{model=\"mlp_NAME\"}"], 30'000);
  EXPECT_EQ(parsed.values["swiglu_mlp_loaded_bytes{model=\"mlp_b\"}"], 6);
}

// The metrics on a page of these devices that begin with "swiglu_gpu_" or "nv_".
std::vector<std::string> GpuOutline(const Gauges& gauges) {
  PrometheusObserver observer{ModelRegistry()};
  const MetricsPage page(&observer, gauges, kBuild);
  std::vector<std::string> of_gpus;
  for (const std::string& line : ParsePage(page.Render()).outline) {
    if (absl::StartsWith(line, "swiglu_gpu_") || absl::StartsWith(line, "nv_")) {
      of_gpus.push_back(line);
    }
  }
  return of_gpus;
}

TEST(MetricsPageTest, FiguresThatAreNotThereHaveNoSeries) {
  const std::vector<std::string> none;
  EXPECT_EQ(GpuOutline(GaugesOfOneGpu([] { return std::nullopt; })), none);
  EXPECT_EQ(GpuOutline(GaugesOfOneGpu(nullptr)), none);
  EXPECT_EQ(GpuOutline(GaugesOfOneGpu([] { return GpuFigures(); })), none);

  GpuFigures nameless;
  nameless.power_watts = 5;
  EXPECT_EQ(GpuOutline(GaugesOfOneGpu([&] { return nameless; })),
            std::vector<std::string>{"swiglu_gpu_power_watts{device} gauge 1"});
}

TEST(MetricsPageTest, EachGpuHasItsOwnSeries) {
  Gauges gauges = GaugesOfOneGpu();
  GpuFigures other;
  other.uuid = "GPU-2";
  other.power_watts = 80;
  gauges.devices.push_back({1, [] { return 0; }, [&] { return other; }});
  PrometheusObserver observer{ModelRegistry()};
  const MetricsPage page(&observer, gauges, kBuild);
  ParsedPage parsed = ParsePage(page.Render());
  EXPECT_EQ(parsed.values["swiglu_gpu_power_watts{device=\"0\"}"], 123.5);
  EXPECT_EQ(parsed.values["swiglu_gpu_power_watts{device=\"1\"}"], 80);
  EXPECT_EQ(parsed.values["nv_gpu_power_usage{gpu_uuid=\"GPU-2\"}"], 80);
  EXPECT_EQ(parsed.values.count("swiglu_gpu_temperature_celsius{device=\"1\"}"), 0u);
}

TEST(MetricsPageTest, BuildInfoNamesTheBuild) {
  PrometheusObserver observer{ModelRegistry()};
  const MetricsPage page(&observer, {}, kBuild);
  EXPECT_EQ(ParsePage(page.Render())
                .values["swiglu_build_info{commit=\"abcdef\",cuda=\"13.0\",version=\"1.2.3\"}"],
            1);
}

TEST(MetricsPageTest, CountersOfTheObserverAreOnIt) {
  PrometheusObserver observer{ModelRegistry()};
  const MetricsPage page(&observer, {}, kBuild);
  RequestRecord record;
  record.rejection = Rejection::kDraining;
  observer.RequestFinished(record);
  EXPECT_EQ(ParsePage(page.Render()).values["swiglu_rejected_total{reason=\"draining\"}"], 1);
}

// A figure of /proc/self/status, in bytes.
double StatusBytes(const std::string& name) {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;) {
    if (word != name + ":") continue;
    double kib = 0;
    status >> kib;
    return kib * 1024;
  }
  return 0;
}

TEST(MetricsPageTest, ProcessFiguresAreThoseOfThisProcess) {
  // Its name may hold anything, and stands in front of the others.
  ASSERT_EQ(prctl(PR_SET_NAME, "a) R 1 2 3"), 0);
  rlimit limit{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
  rlimit lower = limit;
  lower.rlim_cur = 200;
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &lower), 0);
  PrometheusObserver observer{ModelRegistry()};
  const MetricsPage page(&observer, {}, kBuild);
  ParsedPage before = ParsePage(page.Render());
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);

  EXPECT_EQ(before.values["process_max_fds"], 200);
  EXPECT_NEAR(before.values["process_cpu_seconds_total"],
              static_cast<double>(clock()) / CLOCKS_PER_SEC, 1);
  EXPECT_NEAR(before.values["process_resident_memory_bytes"], StatusBytes("VmRSS"), 64 << 20);
  EXPECT_NEAR(before.values["process_virtual_memory_bytes"], StatusBytes("VmSize"), 64 << 20);
  // The kernel's idea of the time of boot may be off by seconds; a wrong unit or field is off by
  // far more.
  EXPECT_NEAR(before.values["process_start_time_seconds"], static_cast<double>(time(nullptr)), 600);

  int num_open = 0;
  for (int fd = 0; fd < 65536; ++fd) num_open += fcntl(fd, F_GETFD) >= 0 ? 1 : 0;
  EXPECT_EQ(before.values["process_open_fds"], num_open);
  const std::ifstream one_more("/proc/self/stat");
  EXPECT_EQ(ParsePage(page.Render()).values["process_open_fds"], num_open + 1);
}

}  // namespace
}  // namespace swiglu::server
