// SPDX-License-Identifier: Apache-2.0
//
// The library with two programs swiglu-server, one of which ends under load: no call fails.
#include <atomic>
#include <limits>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gtest/gtest.h"
#include "swiglu/client.h"
#include "tests/client/bytes.h"
#include "tests/client/server_process.h"

namespace swiglu::client {
namespace {

class ServerLossTest : public testing::Test {
 protected:
  static constexpr int kThreads = 8;
  static constexpr int kCallsBefore = 200, kCallsAfter = 1000;

  // Calls from several threads; ends `lost` by `end` in the middle.
  void LoseUnderLoad(ServerProcess& lost, const ServerProcess& other,
                     void (ServerProcess::*end)()) {
    const auto client = Client::Create(absl::StrCat(lost.address(), ",", other.address())).value();
    const std::string bytes = Numbers(1024, 1);
    const TensorView tensor{Dtype::kFp16, {512}, AsBytes(bytes)};
    std::atomic<int> num_done = 0;
    std::atomic<int> num_wanted = std::numeric_limits<int>::max();
    std::vector<std::thread> threads;
    for (int i = 0; i < kThreads; ++i) {
      threads.emplace_back([&] {
        while (num_done < num_wanted) {
          const absl::Status status = client.Forward(tensor, tensor).status();
          EXPECT_TRUE(status.ok()) << status;
          ++num_done;
          num_done.notify_all();
        }
      });
    }
    for (int now = num_done; now < kCallsBefore; now = num_done) num_done.wait(now);
    (lost.*end)();
    num_wanted = num_done + kCallsAfter;
    for (std::thread& thread : threads) thread.join();
  }
};

TEST_F(ServerLossTest, NoCallFailsWhenAServerIsKilled) {
  ServerProcess lost({}), other({});
  LoseUnderLoad(lost, other, &ServerProcess::Kill);
}

// The server would serve for an hour more.
TEST_F(ServerLossTest, AServerThatDrainsIsLeftBeforeItRefuses) {
  ServerProcess lost({"--drain_delay=1h"}), other({});
  const auto client = Client::Create(absl::StrCat(lost.address(), ",", other.address())).value();
  const std::string bytes = Numbers(1024, 1);
  const TensorView tensor{Dtype::kFp16, {512}, AsBytes(bytes)};
  const auto server_of_call = [&] {
    CallStatistics statistics;
    EXPECT_TRUE(client.Forward(tensor, tensor, {.statistics = &statistics}).ok());
    EXPECT_EQ(statistics.num_messages, 1);
    return statistics.server;
  };
  const absl::Time deadline = absl::Now() + absl::Seconds(60);
  while (server_of_call() != lost.address() && absl::Now() < deadline) {
  }
  lost.Drain();
  int num_elsewhere = 0;
  while (num_elsewhere < 20 && absl::Now() < deadline) {
    num_elsewhere = server_of_call() == other.address() ? num_elsewhere + 1 : 0;
  }
  EXPECT_EQ(num_elsewhere, 20);
}

TEST_F(ServerLossTest, NoCallFailsWhenAServerDrains) {
  ServerProcess lost({}), other({});
  LoseUnderLoad(lost, other, &ServerProcess::Stop);
}

}  // namespace
}  // namespace swiglu::client
