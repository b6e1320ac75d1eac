// SPDX-License-Identifier: Apache-2.0
//
// Counts any number of latencies in fixed memory, precisely enough for percentiles.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace swiglu::bench {

// Counts durations in buckets from 1 ns to 4 hours. The width of a bucket is below 1 % of the
// durations in it. Longer durations count as 4 hours. Not thread-safe: each thread has a histogram
// of its own, and the histograms are merged at the end.
class LatencyHistogram {
 public:
  using Duration = std::chrono::nanoseconds;

  // The values that have the same number of bits are divided into 128 buckets of equal width.
  static constexpr int kPrecisionBits = 7;
  static constexpr int kMaxBits = 44;

  // A negative duration counts as 0.
  void Record(Duration latency);

  void Merge(const LatencyHistogram& other);

  int64_t count() const { return count_; }
  // Exact. 0 if nothing was recorded.
  Duration max() const { return Duration(max_ns_); }
  Duration Mean() const;

  // The percentile for `fraction` (0 to 1): the smallest latency L such that at least this share of
  // all latencies is L or less. Exact to 0.5 %; 0 if nothing was recorded.
  Duration Percentile(double fraction) const;

  // Latencies that count as equal.
  struct Bucket {
    Duration value;  // as Percentile gives it
    int64_t count;
  };
  // The buckets that have counts, the smallest latency first.
  std::vector<Bucket> Filled() const;

 private:
  static constexpr size_t kNumBuckets = size_t{kMaxBits - kPrecisionBits + 1} << kPrecisionBits;

  static size_t BucketOf(uint64_t value);
  static uint64_t MiddleOf(size_t bucket);
  // The latency that stands for all of the bucket.
  Duration ValueOf(size_t bucket) const;

  std::array<int64_t, kNumBuckets> buckets_ = {};
  int64_t count_ = 0;
  int64_t sum_ns_ = 0;
  int64_t max_ns_ = 0;
};

}  // namespace swiglu::bench
