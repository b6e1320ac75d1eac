// SPDX-License-Identifier: Apache-2.0
//
// Adds up the results of requests, threads and sizes.
#include "client/bench/load.h"

#include <algorithm>

namespace swiglu::bench {

absl::Duration RequestTimeout(const LoadOptions& options, const RequestData& data) {
  if (options.timeout > absl::ZeroDuration()) return options.timeout;
  return absl::Seconds(30) + absl::Nanoseconds(10) * (data.input_bytes() + data.output_bytes());
}

std::vector<RequestData> MakeRequestData(const LoadOptions& options) {
  std::vector<RequestData> data;
  for (const WeightedSize& size : options.request_bytes) {
    data.emplace_back(options.model, NumElements(*options.model, size.bytes));
  }
  return data;
}

void Tally::Record(size_t size, const RequestData& data, const Turn& turn, Clock::time_point done,
                   const absl::Status& status) {
  last_done_ = std::max(last_done_, done);
  if (!status.ok()) {
    ++num_errors_[status.code()];
    example_.Update(status);
    return;
  }
  SizeTally& tally = sizes_[size];
  tally.latency.Record(done - turn.intended);
  tally.bytes_in += data.input_bytes();
  tally.bytes_out += data.output_bytes();
}

void Tally::RecordMessages(const client::CallStatistics& statistics, int64_t num_chunks) {
  if (statistics.num_messages == 0) return;
  const int64_t num_needed = std::max(num_chunks, int64_t{1});
  const int64_t num_again = std::max(statistics.num_messages - num_needed, int64_t{0});
  const double share = 1 / static_cast<double>(statistics.num_joined);
  ++messages_.num_calls;
  messages_.num_messages += static_cast<double>(num_needed) * share;
  messages_.num_retries += static_cast<double>(num_again) * share;
}

void Tally::Merge(const Tally& other) {
  messages_.num_calls += other.messages_.num_calls;
  messages_.num_messages += other.messages_.num_messages;
  messages_.num_retries += other.messages_.num_retries;
  for (size_t k = 0; k < sizes_.size(); ++k) {
    sizes_[k].latency.Merge(other.sizes_[k].latency);
    sizes_[k].bytes_in += other.sizes_[k].bytes_in;
    sizes_[k].bytes_out += other.sizes_[k].bytes_out;
  }
  for (const auto& [code, count] : other.num_errors_) num_errors_[code] += count;
  example_.Update(other.example_);
  last_done_ = std::max(last_done_, other.last_done_);
}

SizeTally Tally::Total() const {
  SizeTally total;
  for (const SizeTally& size : sizes_) {
    total.latency.Merge(size.latency);
    total.bytes_in += size.bytes_in;
    total.bytes_out += size.bytes_out;
  }
  return total;
}

int64_t Tally::NumFailed() const {
  int64_t num_failed = 0;
  for (const auto& [code, count] : num_errors_) num_failed += count;
  return num_failed;
}

Clock::duration MeasuredTime(const Pace& pace, const Tally& tally) {
  const Clock::time_point last = std::max(pace.begin(), tally.last_done());
  if (pace.end() == Clock::time_point::max()) return last - pace.begin();
  return std::max(pace.end(), last) - pace.begin();
}

}  // namespace swiglu::bench
