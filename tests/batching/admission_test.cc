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

bool Reserved(const absl::variant<Charge, Rejection>& result) {
  return absl::holds_alternative<Charge>(result);
}

template <typename T>
Rejection Reason(const absl::variant<T, Rejection>& result) {
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
  Admission admission({.max_queued_requests = 2, .memory_budget_bytes = 200});
  auto first = admission.Admit(60);
  EXPECT_EQ(Reason(admission.Admit(41)), Rejection::kBudget);
  EXPECT_EQ(admission.queued_requests(), 1);
  EXPECT_EQ(admission.used_bytes(MemoryKind::kStaging), 60);
  EXPECT_TRUE(Admitted(admission.Admit(40)));
}

TEST(AdmissionTest, TellsWhatCanNeverFitFromWhatDoesNotFitNow) {
  Admission admission({.max_queued_requests = 2, .memory_budget_bytes = 200});
  EXPECT_EQ(Reason(admission.Admit(101)), Rejection::kTooLarge);
  EXPECT_EQ(Reason(admission.Reserve(101)), Rejection::kTooLarge);
  EXPECT_TRUE(Admitted(admission.Admit(100)));
  EXPECT_TRUE(Reserved(admission.Reserve(100)));
}

TEST(AdmissionTest, TellsWhetherAnyRequestIsThereBesideOne) {
  Admission admission({.max_queued_requests = 4, .memory_budget_bytes = 1000});
  Charge message = absl::get<Charge>(admission.Reserve(10));
  Ticket ticket = absl::get<Ticket>(admission.Admit(20));
  EXPECT_TRUE(admission.HoldsOnly(message, ticket));
  {
    const Charge other_message = absl::get<Charge>(admission.Reserve(1));
    EXPECT_FALSE(admission.HoldsOnly(message, ticket));
  }
  {
    const Ticket other_ticket = absl::get<Ticket>(admission.Admit(1));
    EXPECT_FALSE(admission.HoldsOnly(message, ticket));
  }
  EXPECT_TRUE(admission.HoldsOnly(message, ticket));
}

TEST(AdmissionTest, RefusesEverythingWhileDraining) {
  Admission admission({.max_queued_requests = 2, .memory_budget_bytes = 200});
  admission.StartDrain();
  EXPECT_EQ(Reason(admission.Admit(0)), Rejection::kDraining);
  EXPECT_EQ(Reason(admission.Reserve(0)), Rejection::kDraining);
}

TEST(AdmissionTest, MessagesAndSlabsHaveHalfOfTheBudgetEach) {
  Admission admission({.max_queued_requests = 2, .memory_budget_bytes = 200});
  const auto received = admission.Reserve(70);
  EXPECT_EQ(admission.used_bytes(MemoryKind::kReceive), 70);
  EXPECT_EQ(Reason(admission.Reserve(31)), Rejection::kBudget);
  EXPECT_TRUE(Reserved(admission.Reserve(30)));
  const auto admitted = admission.Admit(100);
  EXPECT_TRUE(Admitted(admitted));
  EXPECT_EQ(Reason(admission.Admit(1)), Rejection::kBudget);
  EXPECT_TRUE(Reserved(admission.Reserve(30)));
}

TEST(AdmissionTest, ReservesNothingForARequestThatWouldFindTheQueueFull) {
  Admission admission({.max_queued_requests = 1, .memory_budget_bytes = 200});
  auto admitted = admission.Admit(1);
  EXPECT_EQ(Reason(admission.Reserve(1)), Rejection::kQueueFull);
  EXPECT_EQ(admission.used_bytes(MemoryKind::kReceive), 0);
  absl::get<Ticket>(admitted).LeaveQueue();
  EXPECT_TRUE(Reserved(admission.Reserve(1)));
}

TEST(AdmissionTest, AReservationTakesTheSizeThatTheMessageTurnsOutToHave) {
  Admission admission({.max_queued_requests = 1, .memory_budget_bytes = 200});
  {
    auto reserved = admission.Reserve(60);
    Charge& charge = absl::get<Charge>(reserved);
    EXPECT_TRUE(charge.Resize(20));
    EXPECT_EQ(admission.used_bytes(MemoryKind::kReceive), 20);
    const auto other = admission.Reserve(50);
    EXPECT_FALSE(charge.Resize(51));
    EXPECT_EQ(charge.bytes(), 20);
    EXPECT_EQ(admission.used_bytes(MemoryKind::kReceive), 70);
    EXPECT_TRUE(charge.Resize(50));
    EXPECT_EQ(admission.used_bytes(MemoryKind::kReceive), 100);
  }
  EXPECT_EQ(admission.used_bytes(MemoryKind::kReceive), 0);
}

TEST(AdmissionTest, AChargeMovesBetweenKindsAndOutlivesItsTicket) {
  Admission admission({.max_queued_requests = 2, .memory_budget_bytes = 200});
  Charge charge;
  EXPECT_FALSE(charge.is_held());
  {
    auto admitted = admission.Admit(50);
    charge = absl::get<Ticket>(admitted).TakeCharge();
  }
  EXPECT_TRUE(charge.is_held());
  EXPECT_EQ(admission.queued_requests(), 0);
  EXPECT_EQ(admission.used_bytes(MemoryKind::kStaging), 50);
  charge.MoveTo(MemoryKind::kResponse);
  EXPECT_EQ(admission.used_bytes(MemoryKind::kStaging), 0);
  EXPECT_EQ(admission.used_bytes(MemoryKind::kResponse), 50);
  charge = Charge();
  EXPECT_EQ(admission.used_bytes(MemoryKind::kResponse), 0);
}

TEST(AdmissionTest, ChargesAnswersThatAreThereAlsoPastTheHalf) {
  Admission admission({.max_queued_requests = 2, .memory_budget_bytes = 200});
  {
    const Charge answer = admission.ChargeAnswer(90);
    EXPECT_EQ(admission.used_bytes(MemoryKind::kResponse), 90);
    EXPECT_TRUE(admission.HasRoomForAnswers());
    const Charge other = admission.ChargeAnswer(90);
    EXPECT_EQ(admission.used_bytes(MemoryKind::kResponse), 180);
    EXPECT_FALSE(admission.HasRoomForAnswers());
    EXPECT_EQ(Reason(admission.Admit(1)), Rejection::kBudget);
    EXPECT_TRUE(Reserved(admission.Reserve(100)));
  }
  EXPECT_EQ(admission.used_bytes(MemoryKind::kResponse), 0);
  EXPECT_TRUE(Admitted(admission.Admit(100)));
}

TEST(AdmissionTest, NeverExceedsItsLimitsUnderContention) {
  Admission admission({.max_queued_requests = 3, .memory_budget_bytes = 200});
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
