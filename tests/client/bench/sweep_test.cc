// SPDX-License-Identifier: Apache-2.0
//
// The table, the JSON and the drawing of a sweep.
#include "client/bench/sweep.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace swiglu::bench {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::HasSubstr;
using ::testing::Not;

CommandLine SweepCommand() {
  const char* const arguments[] = {"swiglu-bench", "--sweep=1KiB,4KiB"};
  return ParseCommandLine(2, arguments).value();
}

// The report of one load of the sweep: so many requests of 5 ms in 2 s, then an error.
Report ReportOf(int64_t request_bytes, int num_requests) {
  CommandLine command = SweepCommand();
  command.load.request_bytes = {{request_bytes}};
  Report report{.command = command, .tally = Tally(1), .elapsed = seconds(2), .server = {}};
  const std::vector<RequestData> data = MakeRequestData(command.load);
  const Clock::time_point now = Clock::now();
  for (int k = 0; k < num_requests; ++k) {
    report.tally.Record(0, data[0], {now, true}, now + milliseconds(5), absl::OkStatus());
  }
  report.tally.Record(0, data[0], {now, true}, now, absl::InternalError("broken"));
  return report;
}

std::vector<Report> TwoReports() {
  std::vector<Report> reports;
  reports.push_back(ReportOf(1024, 2000));
  reports.push_back(ReportOf(4096, 0));
  return reports;
}

TEST(SweepTest, TextHasALineForEachSize) {
  EXPECT_EQ(FormatSweepText(SweepCommand(), TwoReports()),
            "swiglu_forward_fp16 of 1KiB,4KiB, raw client, closed loop, 16 in flight, connections "
            "8\n"
            "size       requests/s    GB/s in   GB/s out     p50 ms     p99 ms   errors\n"
            "1KiB          1000.00      0.001      0.001      4.997      4.997        1\n"
            "4KiB                -      0.000      0.000          -          -        1\n");
}

TEST(SweepTest, JsonHasTheReportOfEachLoad) {
  const auto parsed = nlohmann::json::parse(FormatSweepJson(TwoReports()));
  ASSERT_EQ(parsed["sweep"].size(), 2U);
  EXPECT_EQ(parsed["sweep"][0]["configuration"]["request_bytes"], "1KiB");
  EXPECT_EQ(parsed["sweep"][0]["requests"], 2000);
  EXPECT_EQ(parsed["sweep"][1]["configuration"]["request_bytes"], "4KiB");
}

TEST(SweepTest, DrawingHasAPointForEachFigure) {
  const std::string svg =
      DrawSweep("a < b", {{1024, 1000, 0.5, 2}, {2048, 100, 1, 4}, {4096, {}, {}, {}}});
  EXPECT_THAT(svg, HasSubstr(">a &lt; b</text>"));
  for (const char* size : {">1KiB<", ">2KiB<", ">4KiB<"}) EXPECT_THAT(svg, HasSubstr(size));
  size_t num_points = 0;
  for (size_t at = 0; (at = svg.find("<circle", at)) != std::string::npos; ++at) ++num_points;
  EXPECT_EQ(num_points, 6U);
  // The scale of the rate is from 100 at the bottom to 1000 at the top.
  EXPECT_THAT(svg, HasSubstr("<polyline points=\"90.0,70.0 265.0,350.0\" fill=\"none\""));
  EXPECT_THAT(svg, Not(HasSubstr("nan")));
}

TEST(SweepTest, DrawingOfOneSizeOrOfNoFiguresHasNumbersOnly) {
  for (const std::vector<SweepPoint>& points :
       {std::vector<SweepPoint>{{1024, 1000, 0.5, 2}}, {{1024, {}, {}, {}}}, {}}) {
    const std::string svg = DrawSweep("title", points);
    EXPECT_THAT(svg, Not(HasSubstr("nan")));
    EXPECT_THAT(svg, Not(HasSubstr("inf")));
    EXPECT_THAT(svg, ::testing::EndsWith("</svg>\n"));
  }
}

}  // namespace
}  // namespace swiglu::bench
