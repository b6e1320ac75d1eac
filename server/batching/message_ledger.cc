// SPDX-License-Identifier: Apache-2.0
//
// Received less delivered. See the header.
#include "server/batching/message_ledger.h"

#include <algorithm>
#include <utility>

namespace swiglu::server {
namespace {

// What goes over the wire with a message: HTTP/2's frames, and the headers of its call.
constexpr int64_t kFrameBytes = 16384;
constexpr int64_t kFrameHeadBytes = 9;
constexpr int64_t kCallHeadBytes = 48;

// What the library reads at once, and may be of a call whose headers come with it.
constexpr int64_t kMostReadAhead = int64_t{4} << 20;

// How old the last look but one may be to tell what came before a message.
constexpr std::chrono::milliseconds kFreshLooks{50};

int64_t WireBytes(int64_t message_bytes) {
  return message_bytes + kCallHeadBytes + kFrameHeadBytes * (message_bytes / kFrameBytes + 1);
}

// How much may have come without a message being larger than `max_bytes` for sure.
int64_t CertainlyTooLarge(int64_t max_bytes) {
  return max_bytes + max_bytes / 64 + (int64_t{128} << 10);
}

}  // namespace

void MessageLedger::Begin(AwaitedMessage& message, Clock::time_point now) {
  message.base_bytes = BaseBytes(now);
  message.progress_bytes = received_bytes_;
  message.progress_at = now;
  awaited_.push_back(&message);
}

void MessageLedger::Arrive(AwaitedMessage& message, int64_t size_bytes) {
  const auto found = std::find(awaited_.begin(), awaited_.end(), &message);
  if (found == awaited_.end()) return;
  pending_bytes_ -= WireBytes(size_bytes);
  message.reservation.TakeFrom(growth_, size_bytes - message.reservation.bytes());
  Erase(found);
}

void MessageLedger::Drop(AwaitedMessage& message) {
  const auto found = std::find(awaited_.begin(), awaited_.end(), &message);
  if (found == awaited_.end()) return;
  // gRPC frees what it has of it; how much that is nobody tells.
  const auto num_awaited = static_cast<int64_t>(awaited_.size());
  pending_bytes_ -= std::min(ShareOf(message, num_awaited), CertainlyTooLarge(message.max_bytes));
  Erase(found);
}

int64_t MessageLedger::BaseBytes(Clock::time_point now) const {
  // A part of the message may have come before the last look.
  if (now - looked_before_ <= kFreshLooks) return received_before_;
  // What came since then may be of messages that were refused.
  return std::max(received_before_, received_bytes_ - kMostReadAhead);
}

void MessageLedger::Erase(std::vector<AwaitedMessage*>::iterator message) {
  awaited_.erase(message);
  if (awaited_.empty()) growth_ = Charge();
}

void MessageLedger::Look(int64_t received_bytes, Clock::time_point now) {
  if (received_bytes < received_bytes_) {
    // Another connection under the same name.
    received_bytes_ = received_before_ = pending_bytes_ = 0;
    for (AwaitedMessage* message : awaited_) message->base_bytes = message->progress_bytes = 0;
  }
  pending_bytes_ += received_bytes - received_bytes_;
  // Headers and other frames add up to nothing: no message can have come before it was awaited.
  const int64_t base = awaited_.empty() ? received_before_ : awaited_.front()->base_bytes;
  pending_bytes_ =
      std::clamp<int64_t>(pending_bytes_, 0, std::max<int64_t>(received_bytes - base, 0));
  received_before_ = received_bytes_;
  looked_before_ = looked_at_;
  received_bytes_ = received_bytes;
  looked_at_ = now;
}

std::optional<Overrun> MessageLedger::Settle(Clock::time_point now, bool others_want,
                                             Clock::duration stall) {
  JudgeProgress(now, others_want);
  int64_t reserved_bytes = 0;
  for (const AwaitedMessage* message : awaited_) reserved_bytes += message->reservation.bytes();
  int64_t wanted_bytes = std::max<int64_t>(pending_bytes_ - reserved_bytes, 0);
  const bool has_unread = now < unread_until_;
  const bool is_covered = wanted_bytes <= kMostUnreadBytes;
  if (has_unread && is_covered) wanted_bytes = std::min(wanted_bytes, MostUnreserved());
  if (awaited_.empty() || wanted_bytes == 0) {
    growth_ = Charge();
    return std::nullopt;
  }
  const size_t culprit = FindCulprit();
  AwaitedMessage& message = *awaited_[culprit];
  // All others have what they bring reserved: the rest is of this one.
  const bool is_certain =
      !has_unread && num_unannounced() == (message.kind == AwaitedKind::kAnnounced ? 0 : 1);
  const int64_t its_bytes = wanted_bytes + message.reservation.bytes();
  if (has_unread && !is_covered && wanted_bytes > MostUnreserved()) {
    return TakeOff(culprit, {awaited_[culprit], Rejection::kBudget, 0, true}, now);
  }
  if (is_certain && its_bytes > CertainlyTooLarge(message.max_bytes)) {
    return TakeOff(culprit, {awaited_[culprit], Rejection::kTooLarge, its_bytes}, now);
  }
  if (message.kind == AwaitedKind::kOfStream && wanted_bytes > kLeastProgressBytes) {
    if (!HasProgressed(message, now) && now - message.progress_at > stall) {
      return TakeOff(culprit, {awaited_[culprit], Rejection::kDeadline, its_bytes}, now);
    }
  }
  // Frames around a message are not charged past what a message can have.
  const int64_t most_bytes = std::max<int64_t>(admission_->half_budget_bytes() - reserved_bytes, 0);
  const bool may_still_fit = pending_bytes_ <= CertainlyTooLarge(admission_->half_budget_bytes());
  if (Grow(may_still_fit ? std::min(wanted_bytes, most_bytes) : wanted_bytes)) return std::nullopt;
  return TakeOff(culprit, {awaited_[culprit], Rejection::kBudget, its_bytes}, now);
}

bool MessageLedger::is_idle() const {
  return received_bytes_ == received_before_ && pending_bytes_ < kLeastProgressBytes &&
         std::all_of(awaited_.begin(), awaited_.end(), [](const AwaitedMessage* message) {
           return message->kind == AwaitedKind::kOfStream;
         });
}

void MessageLedger::JudgeProgress(Clock::time_point now, bool others_want) {
  for (AwaitedMessage* message : awaited_) {
    if (message->kind != AwaitedKind::kAnnounced) continue;
    if (!message->has_begun) message->has_begun = HasProgressed(*message, now);
    // Once it has begun, a pause may be this server's, which is busy.
    const bool is_short = others_want && !message->has_begun;
    if (now - message->progress_at < (is_short ? kShortPatience : kPatience)) continue;
    if (HasProgressed(*message, now)) continue;
    message->kind = AwaitedKind::kUnannounced;
    const int64_t first_bytes = admission_->first_message_bytes();
    if (message->reservation.bytes() > first_bytes) message->reservation.Resize(first_bytes);
  }
}

bool MessageLedger::HasProgressed(AwaitedMessage& message, Clock::time_point now) const {
  if (received_bytes_ - message.progress_bytes < kLeastProgressBytes) return false;
  message.progress_bytes = received_bytes_;
  message.progress_at = now;
  return true;
}

size_t MessageLedger::FindCulprit() const {
  // Whoever announced a size has room for it, and a stream may be idle.
  const auto culprit =
      std::min_element(awaited_.begin(), awaited_.end(),
                       [](const auto* a, const auto* b) { return a->kind < b->kind; });
  return static_cast<size_t>(culprit - awaited_.begin());
}

int64_t MessageLedger::MostUnreserved() const {
  int64_t bytes = 0;
  for (const AwaitedMessage* message : awaited_) {
    if (message->kind == AwaitedKind::kAnnounced) continue;
    bytes += std::max<int64_t>(message->max_bytes - message->reservation.bytes(), 0);
  }
  return bytes;
}

int64_t MessageLedger::num_unannounced() const {
  return std::count_if(awaited_.begin(), awaited_.end(), [](const AwaitedMessage* message) {
    return message->kind != AwaitedKind::kAnnounced;
  });
}

int64_t MessageLedger::ShareOf(const AwaitedMessage& message, int64_t num_sharing) const {
  const int64_t since_begin = std::max<int64_t>(received_bytes_ - message.base_bytes, 0);
  const int64_t share = std::max<int64_t>(pending_bytes_, 0) / std::max<int64_t>(num_sharing, 1);
  return std::min(share, since_begin);
}

Overrun MessageLedger::TakeOff(size_t index, const Overrun& overrun, Clock::time_point now) {
  // Which part of it was whose is not known: of several, each has its share.
  pending_bytes_ -= ShareOf(*awaited_[index], num_unannounced());
  Erase(awaited_.begin() + static_cast<ptrdiff_t>(index));
  CountUnread(now);
  return overrun;
}

bool MessageLedger::Grow(int64_t bytes) {
  if (growth_.is_held()) return growth_.Resize(bytes);
  std::optional<Charge> charge = admission_->ClaimGrowth(bytes, share_);
  if (!charge.has_value()) return false;
  growth_ = *std::move(charge);
  return true;
}

}  // namespace swiglu::server
