// SPDX-License-Identifier: Apache-2.0
//
// The text of known latencies.
#include "client/bench/histogram_text.h"

#include <sstream>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace swiglu::bench {
namespace {

using std::chrono::milliseconds;
using std::chrono::nanoseconds;
using ::testing::StartsWith;

// A row of the table.
struct Row {
  double value = 0;
  double percentile = 0;
  int64_t count = 0;
};

std::vector<Row> RowsOf(const std::string& text) {
  std::vector<Row> rows;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    Row row;
    if (words >> row.value >> row.percentile >> row.count) rows.push_back(row);
  }
  return rows;
}

TEST(HistogramTextTest, HasTheColumnsAndTheFootersOfHdrHistogram) {
  LatencyHistogram latency;
  for (int k = 0; k < 4; ++k) latency.Record(nanoseconds(100));
  for (int k = 0; k < 4; ++k) latency.Record(nanoseconds(200));
  EXPECT_EQ(FormatHistogram(latency),
            "       Value     Percentile TotalCount 1/(1-Percentile)\n"
            "\n"
            "    0.000100 0.000000000000          4           1.00\n"
            "    0.000100 0.100000000000          4           1.11\n"
            "    0.000100 0.200000000000          4           1.25\n"
            "    0.000100 0.300000000000          4           1.43\n"
            "    0.000100 0.400000000000          4           1.67\n"
            "    0.000100 0.500000000000          4           2.00\n"
            "    0.000200 0.550000000000          8           2.22\n"
            "    0.000200 1.000000000000          8\n"
            "#[Mean    =     0.000150, StdDeviation   =     0.000050]\n"
            "#[Max     =     0.000200, Total count    =            8]\n"
            "#[Buckets =           37, SubBuckets     =          256]\n");
}

TEST(HistogramTextTest, HasNoRowWithoutLatencies) {
  const std::string text = FormatHistogram(LatencyHistogram());
  EXPECT_THAT(RowsOf(text), ::testing::IsEmpty());
  EXPECT_THAT(text, StartsWith("       Value     Percentile TotalCount 1/(1-Percentile)\n\n#[Mean "
                               "   =     0.000000, StdDeviation   =     0.000000]\n"));
}

TEST(HistogramTextTest, EachValueIsThePercentile) {
  LatencyHistogram latency;
  for (int ms = 1; ms <= 1000; ++ms) latency.Record(milliseconds(ms));
  const std::vector<Row> rows = RowsOf(FormatHistogram(latency));
  ASSERT_GT(rows.size(), 40U);
  for (size_t k = 0; k + 1 < rows.size(); ++k) {
    const double of_histogram =
        std::chrono::duration<double, std::milli>(latency.Percentile(rows[k].percentile)).count();
    EXPECT_NEAR(rows[k].value, of_histogram, of_histogram * 0.01) << rows[k].percentile;
    // Not fewer than this share has such a latency or a lower one.
    EXPECT_GE(static_cast<double>(rows[k].count), rows[k].percentile * 1000 - 1e-6);
  }
  EXPECT_EQ(rows[3].percentile, 0.3);
  EXPECT_NEAR(rows[3].value, 300, 1.5);
  EXPECT_EQ(rows.back().value, 1000);
  EXPECT_EQ(rows.back().percentile, 1);
  EXPECT_EQ(rows.back().count, 1000);
}

TEST(HistogramTextTest, HalvesTheDistanceToTheWholeInFiveSteps) {
  LatencyHistogram latency;
  for (int ns = 1; ns <= 100; ++ns) latency.Record(nanoseconds(ns));
  std::vector<double> percentiles;
  for (const Row& row : RowsOf(FormatHistogram(latency))) percentiles.push_back(row.percentile);
  EXPECT_THAT(
      std::vector<double>(percentiles.begin(), percentiles.begin() + 12),
      ::testing::ElementsAre(0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.775));
}

TEST(HistogramTextTest, RanksAreExact) {
  LatencyHistogram latency;
  for (int ns = 1; ns <= 10; ++ns) latency.Record(nanoseconds(ns));
  const std::vector<Row> rows = RowsOf(FormatHistogram(latency));
  for (size_t k = 1; k <= 5; ++k) EXPECT_EQ(rows[k].count, static_cast<int64_t>(k));
}

}  // namespace
}  // namespace swiglu::bench
