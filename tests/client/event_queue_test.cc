// SPDX-License-Identifier: Apache-2.0
//
// Where timers run, and what ends the threads.
#include "client/event_queue.h"

#include <atomic>
#include <functional>
#include <thread>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"

namespace swiglu::client {
namespace {

TEST(EventQueueTest, ATimerRunsOnTheThreadThatTakesEvents) {
  EventQueue queue;
  std::thread::id thread;
  const absl::Time time = absl::Now() + absl::Milliseconds(2);
  Timer::Start(&queue, time, [&] {
    thread = std::this_thread::get_id();
    EXPECT_GE(absl::Now(), time);
  });
  EXPECT_EQ(queue.num_expected(), 1);
  queue.TakeOne(Wait::kSleep);
  EXPECT_EQ(thread, std::this_thread::get_id());
  EXPECT_EQ(queue.num_expected(), 0);
}

TEST(EventQueueTest, ATimeThatIsOverIsNow) {
  EventQueue queue;
  int num_runs = 0;
  for (const absl::Time time : {absl::Now(), absl::Now() - absl::Hours(1), absl::UnixEpoch()}) {
    Timer::Start(&queue, time, [&] { ++num_runs; });
    queue.TakeOne(Wait::kSleep);
  }
  EXPECT_EQ(num_runs, 3);
}

TEST(EventQueueTest, ATimerCanBeHurried) {
  EventQueue queue;
  bool has_run = false;
  Timer* const timer = Timer::Start(&queue, absl::Now() + absl::Hours(1), [&] { has_run = true; });
  timer->Hurry();
  queue.TakeOne(Wait::kSpin);
  EXPECT_TRUE(has_run);
}

// Notes that it was told.
class Told final : public Reminder {
 public:
  explicit Told(Timer* timer) : timer_(timer) {}
  void OnTime() override {
    ++num_times;
    time = absl::Now();
    timer_->Hurry();
  }

  int num_times = 0;
  absl::Time time;

 private:
  Timer* const timer_;
};

TEST(EventQueueTest, AReminderComesAtItsTimeWhileAnEventIsExpected) {
  for (const Wait wait : {Wait::kSleep, Wait::kSpin}) {
    EventQueue queue;
    Timer* const timer = Timer::Start(&queue, absl::Now() + absl::Hours(1), [] {});
    Told replaced(timer), told(timer);
    const absl::Time time = absl::Now() + absl::Milliseconds(2);
    queue.Remind(absl::Milliseconds(1), &replaced);
    queue.Remind(absl::Milliseconds(2), &told);
    while (queue.num_expected() > 0) queue.TakeOne(wait);
    EXPECT_EQ(told.num_times, 1);
    EXPECT_GE(told.time, time);
    EXPECT_EQ(replaced.num_times, 0);
  }
}

TEST(EventQueueTest, AReminderCanBeTakenBack) {
  EventQueue queue;
  Timer* const timer = Timer::Start(&queue, absl::Now() + absl::Milliseconds(2), [] {});
  Told told(timer);
  queue.Remind(absl::Milliseconds(1), &told);
  queue.ForgetReminder();
  while (queue.num_expected() > 0) queue.TakeOne(Wait::kSleep);
  EXPECT_EQ(told.num_times, 0);
}

TEST(EventQueueTest, RunsEventsUntilItIsNotified) {
  EventQueue queue;
  int num_runs = 0;
  Timer::Start(&queue, absl::Now(), [&] {
    ++num_runs;
    Timer::Start(&queue, absl::Now(), [&] {
      ++num_runs;
      queue.Notify();
    });
  });
  queue.RunUntilNotified(Wait::kSleep);
  EXPECT_EQ(num_runs, 2);
}

TEST(EventQueueTest, ANoticeOfAnotherThreadEndsTheRun) {
  EventQueue queue;
  std::thread notifies([&] { queue.Notify(); });
  queue.RunUntilNotified(Wait::kSleep);
  notifies.join();
}

// A call that blocks waits on its own queue for an event that another thread begins.
TEST(EventQueueTest, TakesEventsThatAnotherThreadBegins) {
  EventQueue queue;
  std::thread::id thread;
  std::thread begins([&] {
    Timer::Start(&queue, absl::Now(), [&] {
      thread = std::this_thread::get_id();
      queue.Notify();
    });
  });
  queue.RunUntilNotified(Wait::kSleep);
  EXPECT_EQ(thread, std::this_thread::get_id());
  begins.join();
}

// Where nothing is expected, and where an event is that does not come.
TEST(EventQueueTest, CallsWhatItsCallerWantsWhileItWaits) {
  for (const Wait wait : {Wait::kSleep, Wait::kSpin}) {
    EventQueue queue;
    Timer* timer = nullptr;
    int num_calls = 0;
    const std::function<void()> while_waiting = [&] {
      if (++num_calls == 1) {
        timer = Timer::Start(&queue, absl::Now() + absl::Hours(1), [&] { queue.Notify(); });
      } else {
        timer->Hurry();
      }
    };
    queue.RunUntilNotified(wait, &while_waiting);
    EXPECT_EQ(num_calls, 2);
  }
}

TEST(EventThreadsTest, QueuesTakeTurns) {
  EventThreads threads(3, [] {});
  EventQueue* const first = threads.Next();
  EventQueue* const second = threads.Next();
  EXPECT_NE(first, second);
  EXPECT_NE(threads.Next(), second);
  EXPECT_EQ(threads.Next(), first);
}

TEST(EventThreadsTest, StopWaitsForWhatIsExpected) {
  EventThreads threads(2, [] {});
  std::atomic<int> num_runs = 0;
  for (int i = 0; i < 4; ++i) {
    EventQueue* const queue = threads.Next();
    Timer::Start(queue, absl::Now() + absl::Milliseconds(1), [&num_runs, queue] {
      Timer::Start(queue, absl::Now() + absl::Milliseconds(1), [&num_runs] { ++num_runs; });
    });
  }
  threads.Stop();
  EXPECT_EQ(num_runs, 4);
}

TEST(EventThreadsTest, LooksAfterConnectionsWhileNothingIsExpected) {
  absl::Notification looks;
  EventThreads threads(2, [&] {
    if (!looks.HasBeenNotified()) looks.Notify();
  });
  looks.WaitForNotification();
}

}  // namespace
}  // namespace swiglu::client
