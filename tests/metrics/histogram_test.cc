// SPDX-License-Identifier: Apache-2.0
//
// Into which bucket an observation goes, in which unit it is shown, and that none is lost.
#include "server/metrics/histogram.h"

#include <cstdint>
#include <limits>
#include <string>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "tests/metrics/parsed_page.h"

namespace swiglu::server {
namespace {

constexpr double kBounds[] = {0.001, 0.01, 1};
constexpr metrics::Metric kMetric{
    "x_seconds", metrics::MetricType::Histogram, "help", {"a", "b"}, kBounds};

constexpr double kCountBounds[] = {0, 1, 4};
constexpr metrics::Metric kCountMetric{
    "x_things", metrics::MetricType::Histogram, "help", {"a", "b"}, kCountBounds};

// The cumulative count of each bucket.
std::vector<uint64_t> Counts(const AtomicHistogram& histogram) {
  std::vector<uint64_t> counts;
  for (const auto& bucket : histogram.Collect().histogram.bucket) {
    counts.push_back(bucket.cumulative_count);
  }
  return counts;
}
using V = std::vector<uint64_t>;

TEST(AtomicHistogramTest, ABoundBelongsToItsBucket) {
  AtomicHistogram histogram(kMetric, AtomicHistogram::Scale::kNanosecondsPerSecond);
  EXPECT_EQ(Counts(histogram), (V{0, 0, 0, 0}));
  histogram.Observe(0);
  EXPECT_EQ(Counts(histogram), (V{1, 1, 1, 1}));
  histogram.Observe(1'000'000);
  EXPECT_EQ(Counts(histogram), (V{2, 2, 2, 2}));
  histogram.Observe(1'000'001);
  EXPECT_EQ(Counts(histogram), (V{2, 3, 3, 3}));
  histogram.Observe(1'000'000'000);
  EXPECT_EQ(Counts(histogram), (V{2, 3, 4, 4}));
  histogram.Observe(1'000'000'001);
  EXPECT_EQ(Counts(histogram), (V{2, 3, 4, 5}));
}

TEST(AtomicHistogramTest, ShowsBoundsAndSumInTheUnitOfTheMetric) {
  AtomicHistogram histogram(kMetric, AtomicHistogram::Scale::kNanosecondsPerSecond);
  histogram.Observe(1'500'000'000);
  histogram.Observe(250'000'000);
  const auto collected = histogram.Collect().histogram;
  EXPECT_EQ(collected.sample_count, 2u);
  EXPECT_DOUBLE_EQ(collected.sample_sum, 1.75);
  ASSERT_EQ(collected.bucket.size(), 4u);
  EXPECT_EQ(collected.bucket[0].upper_bound, 0.001);
  EXPECT_EQ(collected.bucket[2].upper_bound, 1);
  EXPECT_EQ(collected.bucket[3].upper_bound, std::numeric_limits<double>::infinity());
}

TEST(AtomicHistogramTest, CountsAsTheyAre) {
  AtomicHistogram histogram(kCountMetric, AtomicHistogram::Scale::kOne);
  histogram.Observe(1);
  histogram.Observe(2);
  EXPECT_EQ(Counts(histogram), (V{0, 1, 2, 2}));
  EXPECT_EQ(histogram.Collect().histogram.sample_sum, 3);
}

TEST(AtomicHistogramTest, LosesNothingBetweenThreadsAndReaders) {
  AtomicHistogram histogram(kCountMetric, AtomicHistogram::Scale::kOne);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&histogram] {
      for (int i = 0; i < 10'000; ++i) histogram.Observe(i % 3);
    });
  }
  uint64_t last = 0;
  for (int i = 0; i < 100; ++i) {
    const uint64_t now = histogram.Collect().histogram.sample_count;
    EXPECT_GE(now, last);
    last = now;
  }
  for (std::thread& thread : threads) thread.join();
  // 0 comes 3334 times to a thread, 1 and 2 3333 times.
  EXPECT_EQ(Counts(histogram), (V{13'336, 26'668, 40'000, 40'000}));
  EXPECT_EQ(histogram.Collect().histogram.sample_sum, 4 * 3333 * 3);
}

TEST(HistogramFamilyTest, ShowsEachSeriesWithItsLabels) {
  HistogramFamily family(kCountMetric);
  AtomicHistogram* const first = family.Add(AtomicHistogram::Scale::kOne, {"1", "2"});
  AtomicHistogram* const second = family.Add(AtomicHistogram::Scale::kOne, {"1", "3"});
  first->Observe(5);
  second->Observe(7);
  const ParsedPage page = ParsePage(Serialize({family.Collect()}));
  EXPECT_EQ(page.outline, std::vector<std::string>{"x_things{a,b} histogram 2"});
  EXPECT_EQ(page.values.at("x_things_sum{a=\"1\",b=\"2\"}"), 5);
  EXPECT_EQ(page.values.at("x_things_sum{a=\"1\",b=\"3\"}"), 7);
}

}  // namespace
}  // namespace swiglu::server
