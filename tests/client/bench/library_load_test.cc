// SPDX-License-Identifier: Apache-2.0
//
// Who starts the calls of a library load, how many are under way, and when they end, over a
// connection that answers when the test says so.
#include <memory>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "client/bench/library_slot.h"
#include "client/bench/load.h"
#include "client/bench/shared_tensors.h"
#include "gtest/gtest.h"
#include "swiglu/client.h"
#include "swiglu/connection.h"
#include "tests/client/fake_regions.h"
#include "tests/client/fake_server.h"

namespace swiglu::bench {
namespace {

using client::CallContext;
using client::CallResult;
using client::Inference;

// Holds calls until so many are under way, and answers them then.
class HoldingConnection final : public client::Connection {
 public:
  explicit HoldingConnection(size_t num_held) : num_held_(num_held) {}

  void StartInfer(const Inference&, const CallContext&, Done done) override {
    std::vector<Done> ended;
    {
      absl::MutexLock lock(&mutex_);
      starters_.insert(std::this_thread::get_id());
      held_.push_back(std::move(done));
      if (held_.size() < num_held_) return;
      ended.swap(held_);
    }
    for (Done& call : ended) std::move(call)(result_);
  }

  // The threads that have started calls.
  size_t num_starters() const {
    absl::MutexLock lock(&mutex_);
    return starters_.size();
  }

  // Set before the first call.
  CallResult result_;

 private:
  const size_t num_held_;
  mutable absl::Mutex mutex_;
  std::set<std::thread::id> starters_ ABSL_GUARDED_BY(mutex_);
  std::vector<Done> held_ ABSL_GUARDED_BY(mutex_);
};

LoadOptions SixInFlight(int num_callers) {
  LoadOptions options;
  options.model = FindModel("swiglu_backward_fp32");
  options.request_bytes = {{1200, 1}};
  options.num_in_flight = 6;
  options.num_callers = num_callers;
  return options;
}

Tally RunOver(std::shared_ptr<HoldingConnection> connection, const LoadOptions& options,
              const PaceOptions& pace_options) {
  const std::vector<RequestData> data = MakeRequestData(options);
  const std::unique_ptr<Load> load = MakeLibraryLoad(options, &data, std::move(connection));
  Pace pace(pace_options, Clock::now());
  load->Start(&pace);
  return load->Finish();
}

// If fewer were under way, none would end.
TEST(LibraryLoadTest, CallersShareTheRequestsInFlight) {
  for (const int num_callers : {1, 2, 4, 6}) {
    const auto connection = std::make_shared<HoldingConnection>(6);
    const Tally tally = RunOver(connection, SixInFlight(num_callers),
                                {.warm_up = std::chrono::seconds(0), .num_requests = 60});
    EXPECT_EQ(tally.Total().latency.count(), 60);
    EXPECT_EQ(tally.Total().bytes_in, 60 * 1200);
    EXPECT_EQ(connection->num_starters(), static_cast<size_t>(num_callers));
  }
}

TEST(LibraryLoadTest, WithoutCallersEachRequestHasAThread) {
  const auto connection = std::make_shared<HoldingConnection>(6);
  const Tally tally =
      RunOver(connection, SixInFlight(0), {.warm_up = std::chrono::seconds(0), .num_requests = 60});
  EXPECT_EQ(tally.Total().latency.count(), 60);
  EXPECT_EQ(connection->num_starters(), 6u);
}

TEST(LibraryLoadTest, FuturesKeepThePaceOfAnOpenLoop) {
  const auto connection = std::make_shared<HoldingConnection>(1);
  const Tally tally =
      RunOver(connection, SixInFlight(2),
              {.warm_up = std::chrono::seconds(0), .num_requests = 60, .rate = 10'000});
  EXPECT_EQ(tally.Total().latency.count(), 60);
}

TEST(LibraryLoadTest, FailuresOfFuturesAreCounted) {
  const auto connection = std::make_shared<HoldingConnection>(1);
  connection->result_.status = absl::UnavailableError("queue is full");
  const Tally tally =
      RunOver(connection, SixInFlight(2), {.warm_up = std::chrono::seconds(0), .num_requests = 7});
  EXPECT_EQ(tally.num_errors().at(absl::StatusCode::kUnavailable), 7);
}

// One slot, and the calls that it has under way at the holding connection.
class LibrarySlotTest : public ::testing::Test {
 protected:
  explicit LibrarySlotTest(size_t num_held = 2) : connection_(num_held) {}

  const LoadOptions options_ = SixInFlight(1);
  const std::vector<RequestData> data_ = MakeRequestData(options_);
  HoldingConnection connection_;
  int num_ended_ = 0;
  LibrarySlot slot_{0, &options_, &data_, &connection_, [this] { ++num_ended_; }};
  LibrarySlot other_{1, &options_, &data_, &connection_, [this] { ++num_ended_; }};
  Pace pace_{{.warm_up = std::chrono::seconds(0), .duration = std::chrono::hours(1)}, Clock::now()};
  Tally tally_{1};
};

TEST_F(LibrarySlotTest, ACallEndsWithItsAnswerAndNotWhenItIsCounted) {
  const Turn turn{Clock::now(), true};
  EXPECT_TRUE(slot_.Start(turn));
  EXPECT_EQ(num_ended_, 0);
  EXPECT_TRUE(other_.Start(turn));
  EXPECT_EQ(num_ended_, 2);
  const Clock::time_point answered = Clock::now();
  while (Clock::now() == answered) {
  }
  slot_.Count(pace_, &tally_);
  EXPECT_EQ(tally_.Total().latency.count(), 1);
  EXPECT_LE(tally_.last_done(), answered);
  EXPECT_LE(tally_.Total().latency.max(), answered - turn.intended);
}

TEST(LibraryLoadTest, MessagesAreCountedInBothForms) {
  for (const int num_callers : {0, 2}) {
    const auto connection = std::make_shared<HoldingConnection>(1);
    connection->result_.statistics.num_messages = 3;
    connection->result_.statistics.num_joined = 4;
    const Tally tally = RunOver(connection, SixInFlight(num_callers),
                                {.warm_up = std::chrono::seconds(0), .num_requests = 8});
    EXPECT_EQ(tally.messages().num_calls, 8);
    EXPECT_EQ(tally.messages().num_messages, 2);
    EXPECT_EQ(tally.messages().num_retries, 4);
  }
}

// A client refuses regions at such a connection.
class TwoServers final : public client::Connection {
 public:
  void StartInfer(const Inference&, const CallContext&, Done) override {
    ADD_FAILURE() << "the call was sent";
  }
  int num_servers() const override { return 2; }
};

TEST(RefusedCallTest, EndsAtOnceAndIsCounted) {
  client::FakeRegions regions;
  client::FakeServer server([&](const client::FakeCall& call) { return regions.Answer(call); });
  client::Client client = *client::Client::Create(server.address());
  LoadOptions options = SixInFlight(1);
  const std::vector<RequestData> data = MakeRequestData(options);
  const auto tensors = SharedTensors::Create(client, SharedMemory::kSystem, 1, data.back());
  ASSERT_TRUE(tensors.ok()) << tensors.status();
  options.shared_tensors = tensors->get();
  TwoServers connection;
  LibrarySlot slot(0, &options, &data, &connection, [] { ADD_FAILURE() << "a call has ended"; });
  const Pace pace({.warm_up = std::chrono::seconds(0), .duration = std::chrono::hours(1)},
                  Clock::now());
  Tally tally(1);
  EXPECT_FALSE(slot.Start({Clock::now(), true}));
  slot.Count(pace, &tally);
  EXPECT_EQ(tally.num_errors().at(absl::StatusCode::kFailedPrecondition), 1);
}

}  // namespace
}  // namespace swiglu::bench
