// SPDX-License-Identifier: Apache-2.0
//
// The ledger of one connection: how many bytes gRPC holds of the messages that are arriving on it.
// gRPC shows a message only once it is whole. So the ledger counts the bytes that the connection
// has received, as the kernel reports them. A pure state machine: counts and times come in, charges
// and refusals come out.
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
  // The share of its connection; nullptr if the connection is not known. What the connection holds
  // is counted there.
  std::shared_ptr<ReceiveShare> share;
  // Whether the bytes that the connection receives can be counted.
  bool is_measured = false;
};

enum class AwaitedKind : uint8_t {
  // A small first amount is reserved for it.
  kUnannounced,
  // The size that its caller announced is reserved for it.
  kAnnounced,
  // The message belongs to a stream. It may never begin, so nothing is reserved for it.
  kOfStream,
};

// A message that a call waits for, as its ledger sees it.
struct AwaitedMessage {
  AwaitedKind kind = AwaitedKind::kUnannounced;
  // The largest size that the message may have.
  int64_t max_bytes = 0;
  // What is charged for it.
  Charge reservation;

  // The other fields are the ledger's own.

  // What its connection had received before the message (`BaseBytes`).
  int64_t base_bytes = 0;
  // Whether the message has ever made progress.
  bool has_begun = false;
  // What its connection had received when the message last made progress.
  int64_t progress_bytes = 0;
  // When the message last made progress.
  Clock::time_point progress_at;
};

// A message that cannot go on.
struct Overrun {
  AwaitedMessage* message = nullptr;
  // kTooLarge, kBudget or kDeadline.
  Rejection reason = Rejection::kBudget;
  // For a message that is too large: at least this many of its bytes have come.
  int64_t bytes = 0;
  // Bytes of refused messages may be among the bytes that came, so nobody knows whether this
  // message is too large. Set only if the reason is kBudget.
  bool beside_refused = false;
};

// Not thread-safe.
class MessageLedger {
 public:
  // An announced message that brings less than kLeastProgressBytes for this long loses its
  // reservation. The message then counts as one that was not announced. kShortPatience applies
  // while the message has brought nothing yet and others find no room.
  static constexpr std::chrono::milliseconds kPatience{2000};
  static constexpr std::chrono::milliseconds kShortPatience{200};
  static constexpr int64_t kLeastProgressBytes = int64_t{64} << 10;

  // When a message is refused, its caller may go on sending it until the caller learns of the
  // refusal. This takes at most kUnreadTime. At most kMostUnreadBytes of these bytes go uncharged.
  // If more come than that, and more than the connection's other messages may have, one of those
  // messages is refused as one that finds no room.
  static constexpr std::chrono::milliseconds kUnreadTime{1000};
  static constexpr int64_t kMostUnreadBytes = int64_t{64} << 20;

  // `share`: of the connection. `admission` must outlive it.
  MessageLedger(Admission* admission, std::shared_ptr<ReceiveShare> share)
      : admission_(admission), share_(std::move(share)) {}

  // A message is awaited from here on. It must stay where it is until it has ended.
  void Begin(AwaitedMessage& message, Clock::time_point now);

  // The message is whole and has `size_bytes`. Moves the growth charged for it into its
  // reservation. The caller then resizes the reservation to the true size. Does nothing for a
  // message that was overrun.
  void Arrive(AwaitedMessage& message, int64_t size_bytes);

  // The message will not come. Does nothing for a message that was overrun.
  void Drop(AwaitedMessage& message);

  // A message of the connection was refused, and its caller may still send it. For kUnreadTime,
  // bytes that come may belong to this message. So during that time the charge for the other
  // messages stays within their max_bytes, and none of them is refused as too large.
  void CountUnread(Clock::time_point now) { unread_until_ = now + kUnreadTime; }

  // Of the bytes that have come, `bytes` were the headers of a call. They belong to no message.
  void CountHeaders(int64_t bytes) { pending_bytes_ -= bytes; }

  // The connection has received `received_bytes` since it began.
  void Look(int64_t received_bytes, Clock::time_point now);

  // Adjusts the charges to what has come. If a message cannot go on, takes it off the list and
  // returns it: the oldest one that may be the cause. Call again until nothing is returned.
  // `others_want`: a message was refused lately for lack of room. `stall`: how long a message of a
  // stream may stop halfway.
  std::optional<Overrun> Settle(Clock::time_point now, bool others_want, Clock::duration stall);

  // About how many bytes have come and have not yet been delivered as messages.
  int64_t pending_bytes() const { return pending_bytes_; }
  // Whether the ledger awaits only messages of streams, and the last look found no new bytes.
  bool is_idle() const;
  Clock::time_point looked_at() const { return looked_at_; }

 private:
  void JudgeProgress(Clock::time_point now, bool others_want);
  // Whether the connection has received kLeastProgressBytes since the message last made progress.
  // Pings and similar frames bring less.
  bool HasProgressed(AwaitedMessage& message, Clock::time_point now) const;
  // The oldest message of those that are most likely to have outgrown their reservation. REQUIRES:
  // there is one.
  size_t FindCulprit() const;
  int64_t num_unannounced() const;
  // The most that messages which were not announced may have beyond their reservations.
  int64_t MostUnreserved() const;
  // An estimate of the bytes that came before the message of a call whose headers were read at
  // `now`. It is too high rather than too low.
  int64_t BaseBytes(Clock::time_point now) const;
  // Takes a message off the list.
  void Erase(std::vector<AwaitedMessage*>::iterator message);
  // How many of the pending bytes may belong to `message`, if all messages have equal shares.
  int64_t ShareOf(const AwaitedMessage& message, int64_t num_sharing) const;
  // Takes the message of that index off the list; returns `overrun`.
  Overrun TakeOff(size_t index, const Overrun& overrun, Clock::time_point now);
  // Charges `bytes` beyond the reservations. False if there is no room.
  bool Grow(int64_t bytes);

  Admission* const admission_;
  const std::shared_ptr<ReceiveShare> share_;
  std::vector<AwaitedMessage*> awaited_;  // in the order in which they began
  // What is charged beyond the reservations of `awaited_`.
  Charge growth_;
  int64_t pending_bytes_ = 0;  // below 0 until the next look, if more was delivered than was seen
  Clock::time_point unread_until_;  // see CountUnread
  // The connection's bytes at the last look, and at the one before it; the times of both looks.
  int64_t received_bytes_ = 0;
  int64_t received_before_ = 0;
  Clock::time_point looked_at_;
  Clock::time_point looked_before_;
};

}  // namespace swiglu::server
