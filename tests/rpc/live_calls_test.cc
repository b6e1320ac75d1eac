// SPDX-License-Identifier: Apache-2.0
//
// The list of live calls, whose ends may come before their beginnings.
#include "server/transport/live_calls.h"

#include <gtest/gtest.h>

#include <memory>
#include <vector>

namespace swiglu::server {
namespace {

class NoHome final : public Call::Home {
 public:
  std::unique_ptr<CallHandler> OnAccepted(Call&) override { return nullptr; }
  void OnGone(Call&) override {}
  std::string DescribePeer(absl::string_view) override { return ""; }
  void OnDestroyed(IoQueue*) override { ++num_destroyed; }

  int num_destroyed = 0;
};

TEST(LiveCallsTest, HoldsNoCallThatWasRemovedInAnyOrder) {
  NoHome home;
  LiveCalls live;
  {
    std::vector<CallPtr> calls;
    for (int i = 0; i < 40; ++i) {
      calls.push_back(std::make_shared<Call>(&home, nullptr));
      EXPECT_TRUE(live.Add(*calls.back()));
    }
    live.Deliver(ServerEvent::kTick);
    EXPECT_EQ(live.All().size(), 40u);
    for (int i = 0; i < 40; i += 2) live.Remove(*calls[i]);
    EXPECT_FALSE(live.Has(*calls[0]));
    EXPECT_TRUE(live.Has(*calls[1]));
    EXPECT_EQ(live.All().size(), 20u);
    for (int i = 39; i > 0; i -= 2) live.Remove(*calls[i]);
  }
  EXPECT_EQ(home.num_destroyed, 40);
  // Would touch what is gone.
  live.Deliver(ServerEvent::kTick);
}

TEST(LiveCallsTest, TakesNoCallThatHasEndedAlready) {
  NoHome home;
  LiveCalls live;
  const auto call = std::make_shared<Call>(&home, nullptr);
  live.Remove(*call);
  EXPECT_FALSE(live.Add(*call));
}

}  // namespace
}  // namespace swiglu::server
