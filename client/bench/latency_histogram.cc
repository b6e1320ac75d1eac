// SPDX-License-Identifier: Apache-2.0
//
// Each of the first 2^8 values has a bucket. Each further power of two is divided into 2^7.
#include "client/bench/latency_histogram.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace swiglu::bench {

size_t LatencyHistogram::BucketOf(uint64_t value) {
  const int shift = std::max(0, static_cast<int>(std::bit_width(value)) - (kPrecisionBits + 1));
  return (static_cast<size_t>(shift) << kPrecisionBits) + static_cast<size_t>(value >> shift);
}

uint64_t LatencyHistogram::MiddleOf(size_t bucket) {
  const size_t shift = std::max<size_t>(1, bucket >> kPrecisionBits) - 1;
  const uint64_t low = (bucket - (shift << kPrecisionBits)) << shift;
  return low + ((uint64_t{1} << shift) - 1) / 2;
}

void LatencyHistogram::Record(Duration latency) {
  constexpr int64_t kMaxNs = (int64_t{1} << kMaxBits) - 1;
  const int64_t ns = std::clamp<int64_t>(latency.count(), 0, kMaxNs);
  ++buckets_[BucketOf(static_cast<uint64_t>(ns))];
  ++count_;
  sum_ns_ += ns;
  max_ns_ = std::max(max_ns_, ns);
}

void LatencyHistogram::Merge(const LatencyHistogram& other) {
  for (size_t k = 0; k < kNumBuckets; ++k) buckets_[k] += other.buckets_[k];
  count_ += other.count_;
  sum_ns_ += other.sum_ns_;
  max_ns_ = std::max(max_ns_, other.max_ns_);
}

LatencyHistogram::Duration LatencyHistogram::Mean() const {
  return Duration(count_ == 0 ? 0 : sum_ns_ / count_);
}

LatencyHistogram::Duration LatencyHistogram::Percentile(double fraction) const {
  const auto rank = static_cast<int64_t>(std::ceil(fraction * static_cast<double>(count_)));
  int64_t seen = 0;
  for (size_t k = 0; k < kNumBuckets; ++k) {
    seen += buckets_[k];
    if (seen > 0 && seen >= rank) return ValueOf(k);
  }
  return Duration(0);
}

LatencyHistogram::Duration LatencyHistogram::ValueOf(size_t bucket) const {
  return Duration(std::min(max_ns_, static_cast<int64_t>(MiddleOf(bucket))));
}

std::vector<LatencyHistogram::Bucket> LatencyHistogram::Filled() const {
  std::vector<Bucket> filled;
  for (size_t k = 0; k < kNumBuckets; ++k) {
    if (buckets_[k] > 0) filled.push_back({ValueOf(k), buckets_[k]});
  }
  return filled;
}

}  // namespace swiglu::bench
