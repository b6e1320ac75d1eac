// SPDX-License-Identifier: Apache-2.0
//
// The data that a load sends, and the sums of what came of it.
#include "client/bench/load.h"

#include <signal.h>

#include <cmath>
#include <cstring>

#include "client/bench/load_command.h"
#include "gtest/gtest.h"

namespace swiglu::bench {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

const Model& Forward() { return *FindModel("swiglu_forward_fp16"); }

TEST(ModelTest, HasTheSixOfTheServerAndRoundsElementsDown) {
  EXPECT_EQ(AllModels().size(), 6u);
  EXPECT_EQ(FindModel("swiglu_forward_fp64"), nullptr);
  EXPECT_EQ(NumElements(Forward(), 65536), 16384);
  EXPECT_EQ(NumElements(*FindModel("swiglu_backward_fp32"), 65536), 5461);
  EXPECT_EQ(InputBytes(*FindModel("swiglu_backward_fp32"), 5461), 65532);
  EXPECT_EQ(OutputBytes(Forward(), 16384), 32768);
}

TEST(RequestDataTest, HasFiniteDistinctTensors) {
  const Model& model = *FindModel("swiglu_forward_fp32");
  constexpr size_t kNum = size_t{1} << 20;
  const RequestData data(&model, kNum);
  std::vector<float> values(kNum);
  std::memcpy(values.data(), data.input(0).data(), kNum * sizeof(float));
  for (const float value : values) {
    EXPECT_GE(std::abs(value), 0.5f);
    EXPECT_LT(std::abs(value), 1.0f);
  }
  EXPECT_NE(std::memcmp(data.input(0).data(), data.input(1).data(), 4096), 0);
}

TEST(RequestTimeoutTest, GrowsWithAllTensorsUnlessItIsGiven) {
  LoadOptions options;
  // Two inputs and an output of 40 MB each.
  const RequestData data(FindModel("swiglu_forward_fp32"), 10'000'000);
  EXPECT_EQ(RequestTimeout(options, data), absl::Seconds(31.2));
  options.timeout = absl::Seconds(7);
  EXPECT_EQ(RequestTimeout(options, data), absl::Seconds(7));
}

TEST(TallyTest, CountsLatencyFromTheIntendedTime) {
  const RequestData data(&Forward(), 16);
  const Clock::time_point start = Clock::now();
  Tally tally(1);
  tally.Record(0, data, {start, true}, start + seconds(3), absl::OkStatus());
  EXPECT_EQ(tally.Total().latency.max(), seconds(3));
  EXPECT_EQ(tally.Total().bytes_in, 64);
  EXPECT_EQ(tally.Total().bytes_out, 32);
  EXPECT_EQ(tally.last_done(), start + seconds(3));
}

TEST(TallyTest, CountsErrorsByCodeAndWithoutLatency) {
  const RequestData data(&Forward(), 16);
  const Clock::time_point now = Clock::now();
  Tally tally(1), other(1);
  tally.Record(0, data, {now, true}, now, absl::UnavailableError("queue is full"));
  other.Record(0, data, {now, true}, now, absl::UnavailableError("queue is full"));
  other.Record(0, data, {now, true}, now, absl::NotFoundError("unknown model"));
  tally.Merge(other);
  EXPECT_EQ(tally.NumFailed(), 3);
  EXPECT_EQ(tally.num_errors().at(absl::StatusCode::kUnavailable), 2);
  EXPECT_EQ(tally.num_errors().at(absl::StatusCode::kNotFound), 1);
  EXPECT_EQ(tally.example(), absl::UnavailableError("queue is full"));
  Tally none(1);
  none.Merge(tally);
  EXPECT_EQ(none.example(), absl::UnavailableError("queue is full"));
  EXPECT_EQ(tally.Total().latency.count(), 0);
}

TEST(TallyTest, MergesEachSize) {
  const RequestData data(&Forward(), 16);
  const Clock::time_point now = Clock::now();
  Tally tally(2), other(2);
  tally.Record(0, data, {now, true}, now + milliseconds(1), absl::OkStatus());
  other.Record(1, data, {now, true}, now + milliseconds(2), absl::OkStatus());
  tally.Merge(other);
  EXPECT_EQ(tally.sizes()[0].latency.max(), milliseconds(1));
  EXPECT_EQ(tally.sizes()[1].latency.max(), milliseconds(2));
  EXPECT_EQ(tally.Total().latency.count(), 2);
  EXPECT_EQ(tally.sizes()[1].bytes_in, 64);
  EXPECT_EQ(tally.sizes()[1].bytes_out, 32);
  EXPECT_EQ(tally.Total().bytes_in, 128);
  EXPECT_EQ(tally.Total().bytes_out, 64);
  EXPECT_EQ(tally.last_done(), now + milliseconds(2));
}

TEST(TallyTest, CountsMessagesByTheirShare) {
  Tally tally(1), other(1);
  // Three calls joined in a message that was sent twice, one call alone, one that was not sent.
  client::CallStatistics statistics;
  other.RecordMessages(statistics, 0);
  statistics.num_messages = 1;
  other.RecordMessages(statistics, 0);
  statistics.num_messages = 2;
  statistics.num_joined = 3;
  for (int k = 0; k < 3; ++k) tally.RecordMessages(statistics, 0);
  // Four chunks, one of them sent three times; an error after two of four chunks.
  statistics.num_joined = 1;
  statistics.num_messages = 6;
  other.RecordMessages(statistics, 4);
  statistics.num_messages = 2;
  other.RecordMessages(statistics, 4);
  tally.Merge(other);
  EXPECT_EQ(tally.messages().num_calls, 6);
  EXPECT_NEAR(tally.messages().num_messages, 10, 1e-9);
  EXPECT_NEAR(tally.messages().num_retries, 3, 1e-9);
}

// The name has gtest run it first, before other tests start threads.
TEST(StopOrderDeathTest, StopsALoadOnceAndEndsTheProcessWhereNoneRuns) {
  Pace pace({.duration = std::chrono::hours(1)}, Clock::now());
  StopOrder stop;
  EXPECT_EXIT(stop.Take(SIGINT), ::testing::KilledBySignal(SIGINT), "");
  stop.SetLoad(&pace);
  EXPECT_EXIT(stop.Take(SIGHUP), ::testing::KilledBySignal(SIGHUP), "");
  EXPECT_FALSE(pace.was_stopped());
  stop.Take(SIGTERM);
  EXPECT_TRUE(pace.was_stopped());
  // The same order again, also when it was obeyed in the meantime.
  stop.Take(SIGTERM);
  stop.SetLoad(nullptr);
  stop.Take(SIGTERM);
}

TEST(MeasuredTimeTest, IsTheWindowOrWhatItTook) {
  const RequestData data(&Forward(), 16);
  const Clock::time_point start = Clock::now();
  Tally tally(1);
  tally.Record(0, data, {start, true}, start + seconds(4), absl::OkStatus());
  const Pace longer({.warm_up = seconds(1), .duration = seconds(5)}, start);
  EXPECT_EQ(MeasuredTime(longer, tally), seconds(5));
  const Pace shorter({.warm_up = seconds(1), .duration = seconds(2)}, start);
  EXPECT_EQ(MeasuredTime(shorter, tally), seconds(3));
  Pace stopped({.warm_up = seconds(0), .duration = seconds(50)}, start - seconds(10));
  stopped.Stop();
  EXPECT_EQ(MeasuredTime(stopped, Tally(1)), stopped.end() - (start - seconds(10)));
  Pace stopped_early({.warm_up = seconds(50)}, start);
  stopped_early.Stop();
  EXPECT_EQ(MeasuredTime(stopped_early, Tally(1)), seconds(0));
  const Pace by_number({.warm_up = seconds(1), .num_requests = 1}, start);
  EXPECT_EQ(MeasuredTime(by_number, tally), seconds(3));
}

}  // namespace
}  // namespace swiglu::bench
