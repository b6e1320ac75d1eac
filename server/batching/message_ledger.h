// SPDX-License-Identifier: Apache-2.0
//
// The ledger of one connection estimates how many bytes gRPC holds of messages that are still
// arriving. gRPC shows a message only once it is whole. So the ledger works with the number of
// bytes that the connection has received, which the operating system reports. The ledger is a pure
// state machine: its inputs are counts and times, its results are charges and refusals.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "server/batching/admission.h"
#include "server/core/clock.h"
#include "server/core/observer.h"

namespace swiglu::server {

// Where a message comes from.
struct MessageSource {
  // Counts what the message's connection holds. nullptr if the connection is not known.
  std::shared_ptr<ReceiveShare> share;
  // Whether the server can count the bytes that the connection receives.
  bool is_measured = false;
};

enum class AwaitedKind : uint8_t {
  // The server reserves a small first amount for the message.
  kUnannounced,
  // The server reserves the size that the caller announced.
  kAnnounced,
  // The message belongs to a stream. It may never begin, so the server reserves nothing.
  kOfStream,
};

// A message that a call waits for, as its ledger sees it.
struct AwaitedMessage {
  AwaitedKind kind = AwaitedKind::kUnannounced;
  // The largest size that the message may have.
  int64_t max_bytes = 0;
  // The charge for the message.
  Charge reservation;

  // Only the ledger uses the fields below.

  // An estimate of the bytes that the connection had received before the message (`BaseBytes`).
  int64_t base_bytes = 0;
  // Whether the message has ever made progress.
  bool has_begun = false;
  // The bytes that the connection had received when the message last made progress.
  int64_t progress_bytes = 0;
  // When the message last made progress.
  Clock::time_point progress_at;
};

// A message that the server stops receiving.
struct Overrun {
  AwaitedMessage* message = nullptr;
  // kTooLarge, kBudget or kDeadline.
  Rejection reason = Rejection::kBudget;
  // If the reason is kTooLarge: at least this many bytes of the message have arrived.
  int64_t bytes = 0;
  // True if bytes of refused messages may have arrived, too. Then it is unknown whether this
  // message is too large, and the reason is kBudget.
  bool beside_refused = false;
};

// Not thread-safe.
class MessageLedger {
 public:
  // If fewer bytes than kLeastProgressBytes arrive in kPatience, an announced message counts as
  // unannounced from then on, and keeps only the small reservation of such a message.
  // kShortPatience replaces kPatience if the message has not begun and other messages find no room.
  static constexpr std::chrono::milliseconds kPatience{2000};
  static constexpr std::chrono::milliseconds kShortPatience{200};
  static constexpr int64_t kLeastProgressBytes = int64_t{64} << 10;

  // A caller may go on sending a refused message until it learns of the refusal. The ledger allows
  // kUnreadTime for this, and leaves at most kMostUnreadBytes of such bytes uncharged. More than
  // kMostUnreadBytes may arrive beyond what is reserved. If that is also more than the connection's
  // other messages may have, the ledger refuses one of those messages for lack of room.
  static constexpr std::chrono::milliseconds kUnreadTime{1000};
  static constexpr int64_t kMostUnreadBytes = int64_t{64} << 20;

  // `share` belongs to the connection. `admission` must outlive the ledger.
  MessageLedger(Admission* admission, std::shared_ptr<ReceiveShare> share)
      : admission_(admission), share_(std::move(share)) {}

  // Puts `message` on the list of awaited messages. The message must keep its address until Arrive,
  // Drop or Settle takes it off the list.
  void Begin(AwaitedMessage& message, Clock::time_point now);

  // The message is whole and has `size_bytes`. Moves the growth that is charged for it into its
  // reservation. Afterwards, resize the reservation to the true size. Does nothing if Settle has
  // returned the message.
  void Arrive(AwaitedMessage& message, int64_t size_bytes);

  // The message will not arrive. Does nothing if Settle has returned the message.
  void Drop(AwaitedMessage& message);

  // Call this when a message of the connection was refused: its caller may still be sending it. For
  // kUnreadTime, bytes that arrive may belong to this message. During that time, no other message
  // is charged for more than its max_bytes, and none is refused as too large.
  void CountUnread(Clock::time_point now) { unread_until_ = now + kUnreadTime; }

  // Tells the ledger that `bytes` of the received bytes were the headers of a call and belong to no
  // message.
  void CountHeaders(int64_t bytes) { pending_bytes_ -= bytes; }

  // Tells the ledger that the connection has received `received_bytes` since its beginning.
  void Look(int64_t received_bytes, Clock::time_point now);

  // Adjusts the charges to the bytes that have arrived. If there is no room for these bytes, or if
  // a message stalls or is too large, takes a message off the list and returns it: the oldest
  // message of the most suspect kind (see FindCulprit). Call this again until it returns nullopt.
  // `others_want`: whether a message was refused for lack of room lately. `stall`: how long a
  // message of a stream may pause halfway.
  std::optional<Overrun> Settle(Clock::time_point now, bool others_want, Clock::duration stall);

  // An estimate of the bytes that have arrived and that gRPC has not delivered as messages yet.
  int64_t pending_bytes() const { return pending_bytes_; }
  // Whether only messages of streams are awaited, fewer than kLeastProgressBytes are pending, and
  // the last look found no new bytes.
  bool is_idle() const;
  Clock::time_point looked_at() const { return looked_at_; }

 private:
  void JudgeProgress(Clock::time_point now, bool others_want);
  // Whether the connection has received kLeastProgressBytes since the message last made progress.
  // If so, records that the message has made progress now. Pings and similar frames have fewer
  // bytes.
  bool HasProgressed(AwaitedMessage& message, Clock::time_point now) const;
  // The oldest message of the most suspect kind. Unannounced messages are the most suspect, then
  // announced ones, then those of streams. REQUIRES: `awaited_` is not empty.
  size_t FindCulprit() const;
  int64_t num_unannounced() const;
  // The most bytes that all messages except announced ones may have beyond their reservations.
  int64_t MostUnreserved() const;
  // Estimates the bytes that arrived before the message of a call whose headers were read at `now`.
  // The estimate is too low rather than too high.
  int64_t BaseBytes(Clock::time_point now) const;
  // Takes a message off the list.
  void Erase(std::vector<AwaitedMessage*>::iterator message);
  // How many of the pending bytes may belong to `message`, if `num_sharing` messages have equal
  // shares.
  int64_t ShareOf(const AwaitedMessage& message, int64_t num_sharing) const;
  // Takes the message with that index off the list. Returns `overrun`.
  Overrun TakeOff(size_t index, const Overrun& overrun, Clock::time_point now);
  // Sets the charge beyond the reservations to `bytes`. Returns false if there is no room.
  bool Grow(int64_t bytes);

  Admission* const admission_;
  const std::shared_ptr<ReceiveShare> share_;
  std::vector<AwaitedMessage*> awaited_;  // in the order in which they began
  // The charge beyond the reservations of `awaited_`.
  Charge growth_;
  int64_t pending_bytes_ = 0;       // below 0 if more was delivered than the last look saw
  Clock::time_point unread_until_;  // see CountUnread
  // The bytes that the connection had received at the last look and at the look before it, and the
  // times of both looks.
  int64_t received_bytes_ = 0;
  int64_t received_before_ = 0;
  Clock::time_point looked_at_;
  Clock::time_point looked_before_;
};

}  // namespace swiglu::server
