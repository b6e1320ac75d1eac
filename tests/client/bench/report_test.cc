// SPDX-License-Identifier: Apache-2.0
//
// What is printed of requests, and of none.
#include "client/bench/report.h"

#include <string>
#include <utility>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace swiglu::bench {
namespace {

using nlohmann::json;
using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::HasSubstr;
using ::testing::Not;

// The report of a load of two sizes, 1 KiB and 4 KiB, of forward in FP16.
Report NewReport() {
  const char* const arguments[] = {"swiglu-bench", "--request_bytes=1KiB,4KiB"};
  Report report{.command = ParseCommandLine(2, arguments).value(),
                .tally = Tally(2),
                .elapsed = seconds(0),
                .server = ServerUsage{.cpu_seconds = 3, .resident_bytes = 1'000'000}};
  return report;
}

TEST(ReportTest, TellsRatesAndLatencies) {
  Report report = NewReport();
  report.elapsed = seconds(2);
  report.client_cpu_seconds = 1;
  const std::vector<RequestData> data = MakeRequestData(report.command.load);
  const Clock::time_point now = Clock::now();
  for (int k = 0; k < 10; ++k) {
    report.tally.Record(1, data[1], {now, true}, now + milliseconds(5), absl::OkStatus());
  }
  const json parsed = json::parse(FormatJson(report));
  EXPECT_EQ(parsed["requests"], 10);
  EXPECT_EQ(parsed["requests_per_s"], 5.0);
  EXPECT_DOUBLE_EQ(parsed["gb_per_s_in"].get<double>(), 10 * 4096 / 2e9);
  EXPECT_DOUBLE_EQ(parsed["gb_per_s_out"].get<double>(), 10 * 2048 / 2e9);
  EXPECT_EQ(parsed["latency_ms"]["max"], 5.0);
  EXPECT_NEAR(parsed["latency_ms"]["p50"].get<double>(), 5, 0.03);
  EXPECT_DOUBLE_EQ(parsed["server"]["cpu_seconds_per_gb"].get<double>(), 3 / (10 * 6144 / 1e9));
  EXPECT_EQ(parsed["stopped"], false);
  // No request of 1 KiB was counted, and some of 4 KiB were.
  EXPECT_EQ(parsed["sizes"][0]["requests"], 0);
  EXPECT_TRUE(parsed["sizes"][0]["latency_ms"]["p50"].is_null());
  EXPECT_EQ(parsed["sizes"][1]["latency_ms"]["max"], 5.0);
  const std::string text = FormatText(report);
  EXPECT_THAT(text, HasSubstr("\nrequests  10 in 2.000 s: 5.00/s\n"));
  EXPECT_THAT(text, HasSubstr("\n  1KiB    -\n"));
  EXPECT_THAT(text, HasSubstr("max 5.000 ms\n"));
  EXPECT_THAT(text, HasSubstr("\nclient    0.50 cores\n"));
  EXPECT_THAT(text, Not(HasSubstr("stopped")));
}

TEST(ReportTest, TellsEachPercentileByItsName) {
  Report report = NewReport();
  const std::vector<RequestData> data = MakeRequestData(report.command.load);
  const Clock::time_point now = Clock::now();
  for (int ms = 1; ms <= 1000; ++ms) {
    report.tally.Record(0, data[0], {now, true}, now + milliseconds(ms), absl::OkStatus());
  }
  const json latency = json::parse(FormatJson(report))["latency_ms"];
  const std::pair<const char*, double> expected[] = {
      {"p50", 500}, {"p90", 900}, {"p99", 990}, {"p99.9", 999}, {"mean", 500.5}, {"max", 1000}};
  for (const auto& [name, ms] : expected) {
    EXPECT_NEAR(latency[name].get<double>(), ms, 0.005 * ms) << name;
  }
}

TEST(ReportTest, HasNoNumbersOfNoRequests) {
  Report report = NewReport();
  report.was_stopped = true;
  const json parsed = json::parse(FormatJson(report));
  EXPECT_EQ(parsed["requests"], 0);
  EXPECT_EQ(parsed["stopped"], true);
  for (const char* name : {"requests_per_s", "gb_per_s_in", "gb_per_s_out"}) {
    EXPECT_TRUE(parsed[name].is_null()) << name;
  }
  for (const char* name : {"p50", "p90", "p99", "p99.9", "mean", "max"}) {
    ASSERT_TRUE(parsed["latency_ms"].contains(name)) << name;
    EXPECT_TRUE(parsed["latency_ms"][name].is_null()) << name;
  }
  EXPECT_TRUE(parsed["server"]["cpu_seconds_per_gb"].is_null());
  EXPECT_EQ(
      FormatText(report),
      "swiglu_forward_fp16 of 1KiB,4KiB, raw client, closed loop, 16 in flight, connections 8\n"
      "stopped   before its end\n"
      "requests  0 in 0.000 s: -/s\n"
      "moved     - GB/s in, - GB/s out\n"
      "latency   -\n"
      "  1KiB    -\n"
      "  4KiB    -\n"
      "errors    none\n"
      "client    - cores\n"
      "server    - cores, - CPU seconds per GB, 1 MB resident\n");
}

TEST(ReportTest, TellsTheMemoryAndWhatWasChecked) {
  Report report = NewReport();
  EXPECT_EQ(json::parse(FormatJson(report))["configuration"]["shared_memory"], "none");
  EXPECT_FALSE(json::parse(FormatJson(report)).contains("checked"));
  report.command.load.shared_memory = SharedMemory::kSystem;
  report.num_checked = 16;
  EXPECT_EQ(json::parse(FormatJson(report))["configuration"]["shared_memory"], "system");
  EXPECT_EQ(json::parse(FormatJson(report))["checked"], 16);
  EXPECT_THAT(FormatText(report),
              HasSubstr("swiglu_forward_fp16 of 1KiB,4KiB in system shared memory, raw client, "));
  EXPECT_THAT(FormatText(report), HasSubstr("\nchecked   the results of 16 requests are right\n"));
}

TEST(ReportTest, TellsHowTheLibraryWasUsed) {
  Report report = NewReport();
  EXPECT_FALSE(json::parse(FormatJson(report))["configuration"].contains("callers"));
  const char* const arguments[] = {
      "swiglu-bench",     "--client=library", "--callers=4",       "--request_bytes=1KiB,4KiB",
      "--server=a:1,b:1", "--max_attempts=3", "--hedge_delay=5ms", "--streams=off"};
  report.command = ParseCommandLine(8, arguments).value();
  const json configuration = json::parse(FormatJson(report))["configuration"];
  EXPECT_EQ(configuration["server"], "a:1,b:1");
  EXPECT_EQ(configuration["callers"], 4);
  EXPECT_EQ(configuration["coalesce_bytes"], 65536);
  EXPECT_EQ(configuration["max_attempts"], 3);
  EXPECT_EQ(configuration["hedge_delay_seconds"], 0.005);
  EXPECT_EQ(configuration["streams"], false);
  EXPECT_THAT(
      FormatText(report),
      HasSubstr(", library client, closed loop, 16 in flight of 4 callers, connections 8\n"));
}

TEST(ReportTest, TellsTheMessagesOfTheLibrary) {
  Report report = NewReport();
  EXPECT_FALSE(json::parse(FormatJson(report)).contains("retries"));
  EXPECT_THAT(FormatText(report), Not(HasSubstr("messages")));
  report.command.client = ClientKind::kLibrary;
  EXPECT_TRUE(json::parse(FormatJson(report))["calls_per_message"].is_null());
  EXPECT_THAT(FormatText(report), HasSubstr("\nmessages  - calls each, 0 sent again\n"));
  client::CallStatistics statistics;
  statistics.num_messages = 1;
  for (int k = 0; k < 2; ++k) report.tally.RecordMessages(statistics, 0);
  statistics.num_messages = 2;
  statistics.num_joined = 3;
  for (int k = 0; k < 3; ++k) report.tally.RecordMessages(statistics, 0);
  EXPECT_NEAR(json::parse(FormatJson(report))["calls_per_message"].get<double>(), 5 / 3.0, 1e-9);
  EXPECT_EQ(json::parse(FormatJson(report))["retries"], 1);
  EXPECT_THAT(FormatText(report), HasSubstr("\nmessages  1.67 calls each, 1 sent again\n"));
}

// A load of 8 and of 512 tokens on three layers, with a hidden size of 64.
TEST(ReportTest, TellsTokensAndLayersOfAnMlp) {
  const Model mlp{.names = {"mlp_m_2_forward", "mlp_m_3_forward", "mlp_m_4_forward"},
                  .dtype = client::Dtype::kBf16,
                  .inputs = {"x"},
                  .outputs = {"y"},
                  .mlp = "m",
                  .first_layer = 2,
                  .row_elements = 64};
  const char* const arguments[] = {"swiglu-bench", "--mlp=m:2", "--layers=3", "--tokens=8*9,512"};
  Report report{.command = ParseCommandLine(4, arguments).value(),
                .tally = Tally(2),
                .elapsed = seconds(2),
                .server = absl::nullopt};
  report.command.load.model = &mlp;
  report.command.load.request_bytes = {{1024, 9}, {65536, 1}};
  const std::vector<RequestData> data = MakeRequestData(report.command.load);
  const Clock::time_point now = Clock::now();
  for (int k = 0; k < 10; ++k) {
    report.tally.Record(0, data[0], {now, true}, now + milliseconds(5), absl::OkStatus());
  }
  report.num_checked = 7;
  const json parsed = json::parse(FormatJson(report));
  EXPECT_EQ(parsed["requests_per_s"], 5.0);
  EXPECT_EQ(parsed["tokens_per_s"], 40.0);
  EXPECT_EQ(parsed["configuration"]["model"], "mlp_m_2_forward");
  EXPECT_EQ(parsed["configuration"]["mlp"], "m");
  EXPECT_EQ(parsed["configuration"]["layer"], 2);
  EXPECT_EQ(parsed["configuration"]["layers"], 3);
  EXPECT_EQ(parsed["configuration"]["hidden_size"], 64);
  EXPECT_EQ(parsed["configuration"]["tokens"], "8*9,512");
  EXPECT_EQ(parsed["configuration"]["spin"], false);
  EXPECT_EQ(parsed["sizes"][1]["tokens"], 512);
  EXPECT_EQ(parsed["sizes"][1]["request_bytes"], 65536);
  EXPECT_EQ(parsed["checked"], 7);
  const std::string text = FormatText(report);
  EXPECT_THAT(text, ::testing::StartsWith(
                        "mlp_m_2_forward to mlp_m_4_forward of 8*9,512 tokens, raw client, "));
  EXPECT_THAT(text, HasSubstr("\nrequests  10 in 2.000 s: 5.00/s\ntokens    40.00/s\nmoved "));
  EXPECT_THAT(text, HasSubstr("\n  512     -\n"));
  EXPECT_THAT(text, HasSubstr("\nchecked   7 answers equal the first to an equal request\n"));
  EXPECT_FALSE(parsed.contains("computed"));
  report.num_computed = 2;
  EXPECT_EQ(json::parse(FormatJson(report))["computed"], 2);
  EXPECT_THAT(
      FormatText(report),
      HasSubstr("\nchecked   7 answers equal the first to an equal request, and 2 first answers "
                "are those of the formula\n"));
  EXPECT_FALSE(json::parse(FormatJson(NewReport())).contains("tokens_per_s"));
}

TEST(ReportTest, ARateOfZeroIsANumber) {
  Report report = NewReport();
  report.elapsed = seconds(2);
  const json parsed = json::parse(FormatJson(report));
  EXPECT_EQ(parsed["requests_per_s"], 0.0);
  EXPECT_THAT(FormatText(report), HasSubstr("\nrequests  0 in 2.000 s: 0.00/s\n"));
}

}  // namespace
}  // namespace swiglu::bench
