// SPDX-License-Identifier: Apache-2.0
//
// Percentiles of known latencies.
#include "client/bench/latency_histogram.h"

#include "gtest/gtest.h"

namespace swiglu::bench {
namespace {

using std::chrono::hours;
using std::chrono::microseconds;
using std::chrono::nanoseconds;

double Ns(nanoseconds time) { return static_cast<double>(time.count()); }

TEST(LatencyHistogramTest, IsZeroWithoutRecords) {
  const LatencyHistogram empty;
  EXPECT_EQ(empty.count(), 0);
  EXPECT_EQ(empty.Percentile(0.5), nanoseconds(0));
  EXPECT_EQ(empty.Mean(), nanoseconds(0));
  EXPECT_EQ(empty.max(), nanoseconds(0));
}

TEST(LatencyHistogramTest, GivesOneRecordForEveryPercentile) {
  LatencyHistogram latency;
  latency.Record(microseconds(123));
  for (const double fraction : {0.0, 0.5, 0.99, 1.0}) {
    EXPECT_NEAR(Ns(latency.Percentile(fraction)), 123'000, 123'000 * 0.005) << fraction;
  }
  EXPECT_EQ(latency.max(), microseconds(123));
  EXPECT_EQ(latency.Mean(), microseconds(123));
}

TEST(LatencyHistogramTest, IsExactForSmallValues) {
  LatencyHistogram latency;
  for (int ns = 1; ns <= 200; ++ns) latency.Record(nanoseconds(ns));
  EXPECT_EQ(latency.Percentile(0.5), nanoseconds(100));
  EXPECT_EQ(latency.Percentile(0.9), nanoseconds(180));
  EXPECT_EQ(latency.Percentile(0.995), nanoseconds(199));
  EXPECT_EQ(latency.Percentile(1), nanoseconds(200));
}

TEST(LatencyHistogramTest, RoundsRanksUp) {
  LatencyHistogram latency;
  for (int ns = 1; ns <= 3; ++ns) latency.Record(nanoseconds(ns));
  EXPECT_EQ(latency.Percentile(0.5), nanoseconds(2));
  EXPECT_EQ(latency.Percentile(0.99), nanoseconds(3));
}

TEST(LatencyHistogramTest, IsWithinHalfAPercentAtEveryMagnitude) {
  for (int64_t ns = 1; ns < int64_t{1} << 43; ns = ns * 5 / 4 + 1) {
    LatencyHistogram latency;
    latency.Record(nanoseconds(ns));
    latency.Record(hours(4));  // keeps the greatest from hiding what is tested
    EXPECT_NEAR(Ns(latency.Percentile(0.5)), static_cast<double>(ns),
                static_cast<double>(ns) * 0.005);
  }
}

TEST(LatencyHistogramTest, FindsTheTail) {
  LatencyHistogram latency;
  for (int i = 0; i < 990; ++i) latency.Record(microseconds(10));
  for (int i = 0; i < 10; ++i) latency.Record(microseconds(5000));
  EXPECT_NEAR(Ns(latency.Percentile(0.99)), 10'000, 50);
  EXPECT_NEAR(Ns(latency.Percentile(0.991)), 5'000'000, 25'000);
}

TEST(LatencyHistogramTest, TakesWhatIsOutOfRangeAsItsEnds) {
  LatencyHistogram latency;
  latency.Record(nanoseconds(-5));
  EXPECT_EQ(latency.Percentile(1), nanoseconds(0));
  latency.Record(hours(1000));
  EXPECT_EQ(latency.max(), nanoseconds((int64_t{1} << 44) - 1));
  EXPECT_NEAR(Ns(latency.Percentile(1)), Ns(latency.max()), Ns(latency.max()) * 0.005);
}

TEST(LatencyHistogramTest, MergesAsIfAllWereRecordedInOne) {
  LatencyHistogram first, second;
  for (int i = 1; i <= 100; ++i) first.Record(nanoseconds(i));
  for (int i = 101; i <= 200; ++i) second.Record(nanoseconds(i));
  first.Merge(second);
  EXPECT_EQ(first.count(), 200);
  EXPECT_EQ(first.Percentile(0.75), nanoseconds(150));
  EXPECT_EQ(first.max(), nanoseconds(200));
  EXPECT_EQ(first.Mean(), nanoseconds(100));
}

}  // namespace
}  // namespace swiglu::bench
