// SPDX-License-Identifier: Apache-2.0
//
// Latencies of any number of requests in fixed memory, precise enough for percentiles.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>

namespace swiglu::bench {

// Counts durations in buckets whose width is under 1 % of their value, from 1 ns to 4 hours; longer
// ones count as 4 hours. Not thread-safe: one for each thread, merged at the end.
class LatencyHistogram {
 public:
  using Duration = std::chrono::nanoseconds;

  // A negative duration counts as 0.
  void Record(Duration latency);

  void Merge(const LatencyHistogram& other);

  int64_t count() const { return count_; }
  // Exact. 0 if nothing was recorded.
  Duration max() const { return Duration(max_ns_); }
  Duration Mean() const;

  // The least latency that a share `fraction` of all, from 0 to 1, does not exceed, within 0.5 %.
  // 0 if nothing was recorded.
  Duration Percentile(double fraction) const;

 private:
  // A value of b bits falls into one of 128 equal parts of the values of b bits.
  static constexpr int kPrecisionBits = 7;
  static constexpr int kMaxBits = 44;
  static constexpr size_t kNumBuckets = size_t{kMaxBits - kPrecisionBits + 1} << kPrecisionBits;

  static size_t BucketOf(uint64_t value);
  static uint64_t MiddleOf(size_t bucket);

  std::array<int64_t, kNumBuckets> buckets_ = {};
  int64_t count_ = 0;
  int64_t sum_ns_ = 0;
  int64_t max_ns_ = 0;
};

}  // namespace swiglu::bench
