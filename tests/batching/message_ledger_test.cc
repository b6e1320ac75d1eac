// SPDX-License-Identifier: Apache-2.0
//
// What a connection's received bytes say of its messages, with counts and times made up: what is
// charged, when, and who cannot go on.
#include "server/batching/message_ledger.h"

#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <utility>

#include "tests/byte_units.h"

namespace swiglu::server {
namespace {

using std::chrono::milliseconds;

constexpr Clock::duration kStall = std::chrono::seconds(30);

class MessageLedgerTest : public testing::Test {
 protected:
  // Half of the budget is 64 MiB.
  static AdmissionOptions Budget() {
    return {.max_queued_requests = 100, .memory_budget_bytes = 128 * kMiB};
  }

  // One connection.
  struct Peer {
    explicit Peer(Admission* admission) : ledger(admission, share) {}
    std::shared_ptr<ReceiveShare> share = std::make_shared<ReceiveShare>();
    MessageLedger ledger;
    int64_t received_bytes = 0;
  };

  // A message of `peer`, as an inference's, from its headers on.
  std::unique_ptr<AwaitedMessage> Begin(Peer& peer, int64_t announced_bytes = -1) {
    auto message = std::make_unique<AwaitedMessage>();
    message->max_bytes = 64 * kMiB;
    const bool is_announced = announced_bytes >= 0;
    message->kind = is_announced ? AwaitedKind::kAnnounced : AwaitedKind::kUnannounced;
    auto reserved = admission_.Reserve(
        is_announced ? announced_bytes : admission_.first_message_bytes(), peer.share);
    EXPECT_TRUE(absl::holds_alternative<Charge>(reserved));
    message->reservation = std::move(absl::get<Charge>(reserved));
    peer.ledger.Begin(*message, now_);
    return message;
  }
  // `bytes` come over `peer`, and it is looked at.
  std::optional<Overrun> Receive(Peer& peer, int64_t bytes) {
    now_ += milliseconds(10);
    peer.received_bytes += bytes;
    peer.ledger.Look(peer.received_bytes, now_);
    return peer.ledger.Settle(now_, others_want_, kStall);
  }
  int64_t received() const { return admission_.used_bytes(MemoryKind::kReceive); }

  Admission admission_{Budget()};
  Peer peer_{&admission_};
  Clock::time_point now_{std::chrono::hours(1)};
  bool others_want_ = false;
};

TEST_F(MessageLedgerTest, ChargesAnUnannouncedMessageWhatHasCome) {
  const auto message = Begin(peer_);
  EXPECT_EQ(received(), admission_.first_message_bytes());
  for (int i = 1; i <= 10; ++i) {
    EXPECT_EQ(Receive(peer_, kMiB), std::nullopt);
    EXPECT_EQ(received(), i * kMiB);
  }
  peer_.ledger.Arrive(*message, 10 * kMiB - 5000);
  EXPECT_EQ(message->reservation.bytes(), 10 * kMiB - 5000);
  EXPECT_EQ(received(), 10 * kMiB - 5000);
}

TEST_F(MessageLedgerTest, ChargesNothingBeyondAnAnnouncementThatIsKept) {
  const auto message = Begin(peer_, 10 * kMiB);
  for (int i = 0; i < 10; ++i) EXPECT_EQ(Receive(peer_, kMiB), std::nullopt);
  EXPECT_EQ(received(), 10 * kMiB);
  peer_.ledger.Arrive(*message, 10 * kMiB);
  EXPECT_EQ(received(), 10 * kMiB);
}

TEST_F(MessageLedgerTest, RefusesTheMessageThatIsTooLargeAndNoOther) {
  Peer other(&admission_);
  const auto honest = Begin(other);
  EXPECT_EQ(Receive(other, kMiB), std::nullopt);
  const auto large = Begin(peer_);
  large->max_bytes = 8 * kMiB;
  std::optional<Overrun> overrun;
  while (!(overrun = Receive(peer_, kMiB)).has_value()) {
    ASSERT_LT(peer_.received_bytes, 20 * kMiB);
  }
  EXPECT_EQ(overrun->message, large.get());
  EXPECT_EQ(overrun->reason, Rejection::kTooLarge);
  EXPECT_GT(overrun->bytes, 8 * kMiB);
  EXPECT_LE(peer_.received_bytes, 9 * kMiB);
  // What had grown is free at once, the rest with the message itself.
  EXPECT_EQ(received(), kMiB + admission_.first_message_bytes());
  EXPECT_EQ(Receive(other, kMiB), std::nullopt);
  peer_.ledger.Arrive(*large, 5);
  EXPECT_EQ(peer_.ledger.pending_bytes(), 0);
}

// Frames and headers come on top of a message's bytes.
TEST_F(MessageLedgerTest, TakesAMessageOfExactlyTheMost) {
  const auto message = Begin(peer_);
  const int64_t with_frames = 64 * kMiB + 9 * 64 * 64 + 500;
  EXPECT_EQ(Receive(peer_, with_frames), std::nullopt);
  EXPECT_EQ(received(), 64 * kMiB);
  peer_.ledger.Arrive(*message, 64 * kMiB);
  EXPECT_EQ(message->reservation.bytes(), 64 * kMiB);
}

TEST_F(MessageLedgerTest, LeavesRoomForOthersBesideConnectionsThatGrow) {
  Peer more[] = {Peer(&admission_), Peer(&admission_), Peer(&admission_)};
  std::unique_ptr<AwaitedMessage> messages[3];
  bool refused[3] = {};
  for (int i = 0; i < 3; ++i) messages[i] = Begin(more[i]);
  for (int round = 0; round < 200; ++round) {
    for (int i = 0; i < 3; ++i) {
      if (refused[i]) continue;
      const auto overrun = Receive(more[i], 256 << 10);
      refused[i] = overrun.has_value();
      if (overrun.has_value()) {
        EXPECT_EQ(overrun->reason, Rejection::kBudget);
      }
    }
    EXPECT_LT(received(), 62 * kMiB);
    // A caller beside them.
    auto honest = admission_.Reserve(kMiB, peer_.share);
    EXPECT_TRUE(absl::holds_alternative<Charge>(honest)) << round;
  }
  EXPECT_TRUE(refused[0] || refused[1] || refused[2]);
}

TEST_F(MessageLedgerTest, BlamesTheOldestUnannouncedMessageOfAConnection) {
  const auto announced = Begin(peer_, 60 * kMiB);
  const auto first = Begin(peer_);
  const auto second = Begin(peer_);
  EXPECT_EQ(Receive(peer_, 60 * kMiB), std::nullopt);
  const auto overrun = Receive(peer_, 10 * kMiB);
  ASSERT_TRUE(overrun.has_value());
  EXPECT_EQ(overrun->message, first.get());
  EXPECT_EQ(overrun->reason, Rejection::kBudget);
  EXPECT_FALSE(overrun->beside_refused);
}

TEST_F(MessageLedgerTest, AnAnnouncementWithoutBytesLosesItsReservation) {
  const auto silent = Begin(peer_, 60 * kMiB);
  now_ += milliseconds(1900);
  EXPECT_EQ(Receive(peer_, 0), std::nullopt);
  EXPECT_EQ(received(), 60 * kMiB);
  now_ += milliseconds(100);
  EXPECT_EQ(Receive(peer_, 0), std::nullopt);
  EXPECT_EQ(received(), admission_.first_message_bytes());
  // It may still come.
  EXPECT_EQ(Receive(peer_, 60 * kMiB), std::nullopt);
  EXPECT_EQ(received(), 60 * kMiB);
}

TEST_F(MessageLedgerTest, AnAnnouncementThatTricklesLosesItsReservation) {
  const auto trickling = Begin(peer_, 60 * kMiB);
  for (int i = 0; i < 400; ++i) EXPECT_EQ(Receive(peer_, 100), std::nullopt);
  EXPECT_LT(received(), kMiB);
}

TEST_F(MessageLedgerTest, LosesItsReservationSoonerWhileOthersFindNoRoom) {
  others_want_ = true;
  const auto silent = Begin(peer_, 60 * kMiB);
  now_ += milliseconds(200);
  EXPECT_EQ(Receive(peer_, 0), std::nullopt);
  EXPECT_EQ(received(), admission_.first_message_bytes());
}

// The server may be too busy to take what comes.
TEST_F(MessageLedgerTest, KeepsItsReservationThroughAPauseOnceItHasBegun) {
  others_want_ = true;
  const auto paused = Begin(peer_, 60 * kMiB);
  EXPECT_EQ(Receive(peer_, kMiB), std::nullopt);
  now_ += milliseconds(1900);
  EXPECT_EQ(Receive(peer_, 0), std::nullopt);
  EXPECT_EQ(received(), 60 * kMiB);
}

TEST_F(MessageLedgerTest, AnAnnouncementThatComesKeepsItsReservation) {
  const auto slow = Begin(peer_, 60 * kMiB);
  for (int i = 0; i < 600; ++i) EXPECT_EQ(Receive(peer_, 1000), std::nullopt);
  EXPECT_EQ(received(), 60 * kMiB);
}

// Headers and frames of a thousand small calls, around one message that is slow to come.
TEST_F(MessageLedgerTest, CountsWhatWasDeliveredOffAgain) {
  const auto slow = Begin(peer_);
  for (int i = 0; i < 1000; ++i) {
    const auto small = Begin(peer_);
    EXPECT_EQ(Receive(peer_, 100'000 + 100), std::nullopt);
    peer_.ledger.Arrive(*small, 100'000);
  }
  EXPECT_EQ(Receive(peer_, 0), std::nullopt);
  EXPECT_LT(received(), 200'000);
}

TEST_F(MessageLedgerTest, ForgetsWhatCameBeforeAMessage) {
  EXPECT_EQ(Receive(peer_, 50 * kMiB), std::nullopt);
  EXPECT_EQ(Receive(peer_, 0), std::nullopt);
  const auto message = Begin(peer_);
  EXPECT_EQ(Receive(peer_, 1000), std::nullopt);
  EXPECT_EQ(received(), admission_.first_message_bytes());
}

// A connection whose calls were refused is looked at only once it awaits a message again.
TEST_F(MessageLedgerTest, DoesNotBlameAMessageForWhatCameOfOthersBefore) {
  EXPECT_EQ(Receive(peer_, 1000), std::nullopt);
  now_ += milliseconds(500);
  peer_.received_bytes += 200 * kMiB;
  peer_.ledger.Look(peer_.received_bytes, now_);
  const auto message = Begin(peer_, 32 * kMiB);
  for (int i = 0; i < 33; ++i) ASSERT_EQ(Receive(peer_, kMiB), std::nullopt) << i;
  EXPECT_LE(received(), 38 * kMiB);
}

TEST_F(MessageLedgerTest, DoesNotBlameAnAnnouncedMessageForOneThatWasRefused) {
  const auto message = Begin(peer_, 10 * kMiB);
  peer_.ledger.CountUnread(now_);
  for (int i = 0; i < 74; ++i) ASSERT_EQ(Receive(peer_, kMiB), std::nullopt) << i;
  EXPECT_EQ(received(), 10 * kMiB);
  // So much that it is not to be borne uncharged. It may come again.
  const auto overrun = Receive(peer_, kMiB);
  ASSERT_TRUE(overrun.has_value());
  EXPECT_EQ(overrun->reason, Rejection::kBudget);
  EXPECT_TRUE(overrun->beside_refused);
}

// The message that was refused was the only one, and the next one begins while it still comes.
TEST_F(MessageLedgerTest, DoesNotBlameTheNextMessageForOneThatWasRefused) {
  peer_.ledger.CountUnread(now_);
  const auto announced = Begin(peer_, 1000);
  const auto small = Begin(peer_);
  small->max_bytes = 64 << 10;
  for (int i = 0; i < 60; ++i) ASSERT_EQ(Receive(peer_, kMiB), std::nullopt) << i;
  EXPECT_EQ(received(), 1000 + (64 << 10));
  peer_.ledger.Arrive(*announced, 1000);
  peer_.ledger.Arrive(*small, 1000);
  announced->reservation = Charge();
  small->reservation = Charge();
  // A second later messages are judged again.
  now_ += milliseconds(1000);
  const auto next = Begin(peer_, kMiB);
  std::optional<Overrun> overrun;
  for (int i = 0; i < 200 && !overrun.has_value(); ++i) overrun = Receive(peer_, kMiB);
  ASSERT_TRUE(overrun.has_value());
  EXPECT_EQ(overrun->reason, Rejection::kTooLarge);
}

// Small calls that are taken back give nothing of a large message away.
TEST_F(MessageLedgerTest, AMessageThatDoesNotComeFreesNoMoreThanItCanHaveBrought) {
  const auto large = Begin(peer_);
  for (int i = 0; i < 20; ++i) ASSERT_EQ(Receive(peer_, kMiB), std::nullopt) << i;
  for (int i = 0; i < 2; ++i) ASSERT_EQ(Receive(peer_, 0), std::nullopt);
  for (int i = 0; i < 20; ++i) {
    const auto small = Begin(peer_);
    small->max_bytes = 64 << 10;
    peer_.ledger.Drop(*small);
  }
  EXPECT_EQ(Receive(peer_, 0), std::nullopt);
  EXPECT_EQ(received(), 20 * kMiB);
}

// Its caller is told to come again: nobody knows which of the two has outgrown the limit.
TEST_F(MessageLedgerTest, AnUnannouncedMessageBesideARefusedOneIsNotTooLargeForSure) {
  const auto message = Begin(peer_);
  Peer other(&admission_);
  const auto neighbour = Begin(other, 40 * kMiB);
  peer_.ledger.CountUnread(now_);
  std::optional<Overrun> overrun;
  for (int i = 0; i < 200 && !overrun.has_value(); ++i) overrun = Receive(peer_, kMiB);
  ASSERT_TRUE(overrun.has_value());
  EXPECT_EQ(overrun->reason, Rejection::kBudget);
}

// The kernel may have a message before its call is heard of.
TEST_F(MessageLedgerTest, CountsBytesThatCameWithTheHeaders) {
  EXPECT_EQ(Receive(peer_, 3 * kMiB), std::nullopt);
  const auto message = Begin(peer_);
  EXPECT_EQ(Receive(peer_, kMiB), std::nullopt);
  EXPECT_EQ(received(), 4 * kMiB);
}

TEST_F(MessageLedgerTest, AStreamMayIdleButNotStopHalfway) {
  auto read = std::make_unique<AwaitedMessage>();
  read->max_bytes = 64 * kMiB;
  read->kind = AwaitedKind::kOfStream;
  peer_.ledger.Begin(*read, now_);
  now_ += std::chrono::hours(1);
  EXPECT_EQ(Receive(peer_, 1000), std::nullopt);
  EXPECT_EQ(Receive(peer_, kMiB), std::nullopt);
  EXPECT_GT(received(), kMiB - 1000);
  // Pings go on.
  now_ += kStall / 2;
  EXPECT_EQ(Receive(peer_, 17), std::nullopt);
  now_ += kStall / 2;
  const auto overrun = Receive(peer_, 17);
  ASSERT_TRUE(overrun.has_value());
  EXPECT_EQ(overrun->reason, Rejection::kDeadline);
  EXPECT_EQ(received(), 0);
}

// Headers of calls beside it are no part of a stream's message.
TEST_F(MessageLedgerTest, AnIdleStreamOutlivesCallsWithLargeHeaders) {
  auto read = std::make_unique<AwaitedMessage>();
  read->max_bytes = 64 * kMiB;
  read->kind = AwaitedKind::kOfStream;
  peer_.ledger.Begin(*read, now_);
  for (int i = 0; i < 1000; ++i) {
    const auto call = Begin(peer_);
    ASSERT_EQ(Receive(peer_, 8000 + 1000), std::nullopt) << i;
    peer_.ledger.Arrive(*call, 1000);
    peer_.ledger.CountHeaders(8000);
  }
  now_ += 2 * kStall;
  EXPECT_EQ(Receive(peer_, 17), std::nullopt);
  EXPECT_LT(received(), kMiB);
}

TEST_F(MessageLedgerTest, AMessageThatDoesNotComeFreesWhatItHad) {
  const auto message = Begin(peer_);
  EXPECT_EQ(Receive(peer_, 10 * kMiB), std::nullopt);
  peer_.ledger.Drop(*message);
  message->reservation = Charge();
  EXPECT_EQ(received(), 0);
  const auto next = Begin(peer_);
  EXPECT_EQ(Receive(peer_, 0), std::nullopt);
  EXPECT_EQ(Receive(peer_, 0), std::nullopt);
  EXPECT_EQ(peer_.ledger.pending_bytes(), 0);
}

TEST_F(MessageLedgerTest, StartsAnewForAnotherConnectionUnderTheSameName) {
  EXPECT_EQ(Receive(peer_, 50 * kMiB), std::nullopt);
  peer_.received_bytes = 0;
  const auto message = Begin(peer_);
  EXPECT_EQ(Receive(peer_, kMiB), std::nullopt);
  EXPECT_EQ(received(), kMiB);
}

}  // namespace
}  // namespace swiglu::server
