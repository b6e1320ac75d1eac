// SPDX-License-Identifier: Apache-2.0
//
// The library with two programs swiglu-server, one of which hangs under load: small calls are sent
// a second time, to the other one.
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

TEST(ServerHangTest, CallsGoToTheOtherServerWhileOneHangs) {
  constexpr int kThreads = 8;
  constexpr int kCallsBefore = 200, kCallsAfter = 2000;
  ServerProcess hanging({}), other({});
  const auto client =
      Client::Create(absl::StrCat(hanging.address(), ",", other.address()),
                     {.timeout = absl::Minutes(10), .hedge_delay = absl::Milliseconds(5)})
          .value();
  const std::string bytes = Numbers(1024, 1);
  const TensorView tensor{Dtype::kFp16, {512}, AsBytes(bytes)};
  const auto expected = client.Forward(tensor, tensor);
  ASSERT_TRUE(expected.ok()) << expected.status();

  std::atomic<bool> hangs = false;
  std::atomic<int> num_done = 0, num_sent_twice = 0, num_answers_while_hanging = 0;
  std::atomic<int> num_wanted = std::numeric_limits<int>::max();
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&] {
      while (num_done < num_wanted || num_sent_twice == 0) {
        const bool hung = hangs;
        CallStatistics statistics;
        const auto h = client.Forward(tensor, tensor, {.statistics = &statistics});
        EXPECT_TRUE(h.ok()) << h.status();
        EXPECT_TRUE(!h.ok() || AsText(h->bytes()) == AsText(expected->bytes()));
        if (hung && statistics.server == hanging.address()) ++num_answers_while_hanging;
        if (hung && statistics.num_messages > 1) ++num_sent_twice;
        ++num_done;
        num_done.notify_all();
      }
    });
  }
  for (int now = num_done; now < kCallsBefore; now = num_done) num_done.wait(now);
  hanging.Pause();
  hangs = true;
  num_wanted = num_done + kCallsAfter;
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(num_answers_while_hanging, 0);
  EXPECT_GT(num_sent_twice, 0);

  hanging.Resume();
  CallStatistics statistics;
  const absl::Time deadline = absl::Now() + absl::Seconds(60);
  while (statistics.server != hanging.address() && absl::Now() < deadline) {
    EXPECT_TRUE(client.Forward(tensor, tensor, {.statistics = &statistics}).ok());
  }
  EXPECT_EQ(statistics.server, hanging.address()) << "it is not found again";
}

}  // namespace
}  // namespace swiglu::client
