// SPDX-License-Identifier: Apache-2.0
//
// The thread that changes the registry: order, and who closes memory.
#include "server/regions/region_thread.h"

#include <thread>
#include <vector>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "gtest/gtest.h"
#include "tests/regions/fake_opener.h"

namespace swiglu::server {
namespace {

constexpr RegionLimits kEnabled{.enabled = {true, false}};

// Runs `task` on the thread and waits for it.
template <typename Task>
void RunAndWait(RegionThread& thread, Task task) {
  auto done = std::make_shared<absl::Notification>();
  thread.Post([&task, done](RegionRegistry& registry) {
    task(registry);
    done->Notify();
  });
  done->WaitForNotification();
}

TEST(RegionThreadTest, RunsTasksInOrderOnItsThread) {
  FakeOpener opener;
  RegionThread thread(kEnabled, &opener);
  std::vector<int> order;
  std::thread::id id;
  for (int i = 0; i < 100; ++i) {
    thread.Post([&order, i](RegionRegistry&) { order.push_back(i); });
  }
  RunAndWait(thread, [&](RegionRegistry&) { id = std::this_thread::get_id(); });
  ASSERT_EQ(order.size(), 100u);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(order[i], i);
  EXPECT_NE(id, std::this_thread::get_id());
}

TEST(RegionThreadTest, ClosesTheMemoryOfARegionThatWasInUse) {
  FakeOpener opener;
  RegionThread thread(kEnabled, &opener);
  RunAndWait(thread, [](RegionRegistry& registry) {
    registry.Register("r", SystemSpec(64), nullptr, Clock::now());
  });
  RegionUse use = thread.registry().Find("r", Clock::now());
  ASSERT_NE(use, nullptr);
  RunAndWait(thread,
             [](RegionRegistry& registry) { registry.Unregister(RegionKind::kSystem, ""); });
  EXPECT_EQ(opener.state.num_open, 1);
  use.reset();
  const absl::Time end = absl::Now() + absl::Seconds(20);
  while (opener.state.num_open > 0 && absl::Now() < end) absl::SleepFor(absl::Milliseconds(1));
  EXPECT_EQ(opener.state.num_open, 0);
}

TEST(RegionThreadTest, RunsWhatIsLeftAtItsEnd) {
  FakeOpener opener;
  int num_run = 0;
  {
    RegionThread thread(kEnabled, &opener);
    for (int i = 0; i < 10; ++i) {
      thread.Post([&num_run, i](RegionRegistry& registry) {
        ++num_run;
        registry.Register(std::to_string(i), SystemSpec(64), nullptr, Clock::now());
      });
    }
  }
  EXPECT_EQ(num_run, 10);
  EXPECT_EQ(opener.state.num_open, 0);
}

TEST(RegionThreadTest, HasNoThreadWhereRegionsAreOff) {
  const RegionThread thread(RegionLimits(), nullptr);
  EXPECT_EQ(thread.registry().Find("r", Clock::now()), nullptr);
}

}  // namespace
}  // namespace swiglu::server
