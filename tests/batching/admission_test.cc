// SPDX-License-Identifier: Apache-2.0
//
// Admission: each limit, and that everything taken is given back exactly once.
#include "server/batching/admission.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace swiglu::server {
namespace {

bool Admitted(const absl::variant<Ticket, Rejection>& result) {
  return absl::holds_alternative<Ticket>(result);
}

Rejection Reason(const absl::variant<Ticket, Rejection>& result) {
  return absl::get<Rejection>(result);
}

TEST(AdmissionTest, RefusesWhenTheQueueIsFullAndAdmitsAgainWhenOneLeaves) {
  Admission admission({.max_queued_requests = 2, .memory_budget_bytes = 1000});
  auto first = admission.Admit(1);
  auto second = admission.Admit(1);
  ASSERT_TRUE(Admitted(first) && Admitted(second));
  EXPECT_EQ(Reason(admission.Admit(1)), Rejection::kQueueFull);
  EXPECT_EQ(admission.queued_requests(), 2);
  absl::get<Ticket>(first).LeaveQueue();
  absl::get<Ticket>(first).LeaveQueue();
  EXPECT_EQ(admission.queued_requests(), 1);
  EXPECT_TRUE(Admitted(admission.Admit(1)));
}

TEST(AdmissionTest, ReturnsThePlaceInTheQueueWhenTheBudgetRefuses) {
  Admission admission({.max_queued_requests = 2, .memory_budget_bytes = 100});
  auto first = admission.Admit(60);
  EXPECT_EQ(Reason(admission.Admit(41)), Rejection::kBudget);
  EXPECT_EQ(admission.queued_requests(), 1);
  EXPECT_EQ(admission.used_bytes(MemoryKind::kStaging), 60);
  EXPECT_TRUE(Admitted(admission.Admit(40)));
}

TEST(AdmissionTest, TellsWhatCanNeverFitFromWhatDoesNotFitNow) {
  Admission admission({.max_queued_requests = 2, .memory_budget_bytes = 100});
  EXPECT_EQ(Reason(admission.Admit(101)), Rejection::kTooLarge);
  EXPECT_TRUE(Admitted(admission.Admit(100)));
}

TEST(AdmissionTest, RefusesEverythingWhileDraining) {
  Admission admission({.max_queued_requests = 2, .memory_budget_bytes = 100});
  admission.StartDrain();
  EXPECT_EQ(Reason(admission.Admit(0)), Rejection::kDraining);
}

TEST(AdmissionTest, ReceivedMessagesCountAgainstTheBudget) {
  Admission admission({.max_queued_requests = 2, .memory_budget_bytes = 100});
  {
    const Charge received = admission.ChargeReceived(70);
    EXPECT_EQ(admission.used_bytes(MemoryKind::kReceive), 70);
    EXPECT_EQ(Reason(admission.Admit(31)), Rejection::kBudget);
  }
  EXPECT_EQ(admission.used_bytes(MemoryKind::kReceive), 0);
  EXPECT_TRUE(Admitted(admission.Admit(31)));
}

TEST(AdmissionTest, AChargeMovesBetweenKindsAndOutlivesItsTicket) {
  Admission admission({.max_queued_requests = 2, .memory_budget_bytes = 100});
  Charge charge;
  {
    auto admitted = admission.Admit(50);
    charge = absl::get<Ticket>(admitted).TakeCharge();
  }
  EXPECT_EQ(admission.queued_requests(), 0);
  EXPECT_EQ(admission.used_bytes(MemoryKind::kStaging), 50);
  charge.MoveTo(MemoryKind::kResponse);
  EXPECT_EQ(admission.used_bytes(MemoryKind::kStaging), 0);
  EXPECT_EQ(admission.used_bytes(MemoryKind::kResponse), 50);
  charge = Charge();
  EXPECT_EQ(admission.used_bytes(MemoryKind::kResponse), 0);
}

TEST(AdmissionTest, NeverExceedsItsLimitsUnderContention) {
  Admission admission({.max_queued_requests = 3, .memory_budget_bytes = 100});
  std::atomic<bool> exceeded{false};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 20'000; ++i) {
        auto admitted = admission.Admit(40);
        if (admission.queued_requests() > 3) exceeded = true;
        if (admission.used_bytes(MemoryKind::kStaging) > 80) exceeded = true;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_FALSE(exceeded);
  EXPECT_EQ(admission.queued_requests(), 0);
  EXPECT_EQ(admission.used_bytes(MemoryKind::kStaging), 0);
}

}  // namespace
}  // namespace swiglu::server
