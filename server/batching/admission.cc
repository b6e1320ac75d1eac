// SPDX-License-Identifier: Apache-2.0
//
// The counters behind admission. See the header for the contract.
#include "server/batching/admission.h"

namespace swiglu::server {

Charge::~Charge() {
  if (admission_ != nullptr) admission_->Take(kind_, -bytes_, 0, share_.get());
}

void Charge::MoveTo(MemoryKind kind) {
  if (admission_ == nullptr) return;
  admission_->used_by_kind_[static_cast<int>(kind_)].fetch_sub(bytes_, std::memory_order_relaxed);
  admission_->used_by_kind_[static_cast<int>(kind)].fetch_add(bytes_, std::memory_order_relaxed);
  kind_ = kind;
}

bool Charge::Resize(int64_t bytes) {
  if (!admission_->Take(kind_, bytes - bytes_, bytes, share_.get())) return false;
  bytes_ = bytes;
  return true;
}

void Charge::TakeFrom(Charge& other, int64_t bytes) {
  const int64_t taken = std::min(bytes, other.bytes_);
  if (taken <= 0) return;
  if (admission_ == nullptr) *this = Charge(other.admission_, other.kind_, 0, other.share_);
  bytes_ += taken;
  other.bytes_ -= taken;
}

void Ticket::Leave::operator()(Admission* admission) const {
  admission->queued_.fetch_sub(1, std::memory_order_relaxed);
}

bool Admission::Raise(std::atomic<int64_t>& counter, int64_t amount, int64_t limit) {
  int64_t seen = counter.load(std::memory_order_relaxed);
  do {
    if (seen > limit - amount) return false;
  } while (!counter.compare_exchange_weak(seen, seen + amount, std::memory_order_relaxed));
  return true;
}

bool Admission::RaiseReceived(int64_t bytes, int64_t total_bytes, const ReceiveShare* share) {
  const int64_t limit = LimitOf(total_bytes);
  int64_t seen = received_bytes_.load(std::memory_order_relaxed);
  do {
    if (seen > limit - bytes) return false;
    const int64_t held = share == nullptr ? 0 : share->bytes();
    const bool is_alone = share == nullptr || seen <= held;
    if (!is_alone && held + bytes > kMostPerFree * (limit - seen - bytes)) return false;
  } while (!received_bytes_.compare_exchange_weak(seen, seen + bytes, std::memory_order_relaxed));
  return true;
}

bool Admission::Take(MemoryKind kind, int64_t bytes, int64_t total_bytes, ReceiveShare* share) {
  if (bytes > 0) {
    const bool has_room = kind == MemoryKind::kReceive
                              ? RaiseReceived(bytes, total_bytes, share)
                              : Raise(slab_bytes_, bytes, half_budget_bytes());
    if (!has_room) {
      if (kind == MemoryKind::kReceive) {
        short_at_.store(std::chrono::steady_clock::now().time_since_epoch().count(),
                        std::memory_order_relaxed);
      }
      return false;
    }
  }
  used_by_kind_[static_cast<int>(kind)].fetch_add(bytes, std::memory_order_relaxed);
  if (share != nullptr) share->bytes_.fetch_add(bytes, std::memory_order_relaxed);
  // Last, so that a kind's figure never shows more than its half allows.
  if (bytes < 0) HalfOf(kind).fetch_add(bytes, std::memory_order_relaxed);
  return true;
}

absl::variant<Charge, Rejection> Admission::Reserve(int64_t bytes,
                                                    std::shared_ptr<ReceiveShare> share) {
  if (draining()) return Rejection::kDraining;
  if (bytes > half_budget_bytes()) return Rejection::kTooLarge;
  if (queued_requests() >= options_.max_queued_requests) return Rejection::kQueueFull;
  if (!Take(MemoryKind::kReceive, bytes, bytes, share.get())) return Rejection::kBudget;
  return Charge(this, MemoryKind::kReceive, bytes, std::move(share));
}

std::optional<Charge> Admission::ClaimGrowth(int64_t bytes, std::shared_ptr<ReceiveShare> share) {
  if (!Take(MemoryKind::kReceive, bytes, bytes, share.get())) return std::nullopt;
  return Charge(this, MemoryKind::kReceive, bytes, std::move(share));
}

bool Admission::IsShareInUse(int64_t bytes, const ReceiveShare& share) const {
  return share.bytes() > 0 &&
         received_bytes_.load(std::memory_order_relaxed) <= LimitOf(bytes) - bytes;
}

bool Admission::WasShortOfLate() const {
  const std::chrono::steady_clock::duration since_epoch(short_at_.load(std::memory_order_relaxed));
  return std::chrono::steady_clock::now().time_since_epoch() - since_epoch < kShort;
}

Charge Admission::ChargeAnswer(int64_t bytes) {
  HalfOf(MemoryKind::kResponse).fetch_add(bytes, std::memory_order_relaxed);
  used_by_kind_[static_cast<int>(MemoryKind::kResponse)].fetch_add(bytes,
                                                                   std::memory_order_relaxed);
  return Charge(this, MemoryKind::kResponse, bytes);
}

absl::variant<Ticket, Rejection> Admission::Admit(int64_t bytes) {
  if (draining()) return Rejection::kDraining;
  if (bytes > half_budget_bytes()) return Rejection::kTooLarge;
  if (!Raise(queued_, 1, options_.max_queued_requests)) return Rejection::kQueueFull;
  Ticket ticket(this);
  if (!Take(MemoryKind::kStaging, bytes, bytes, nullptr)) return Rejection::kBudget;
  ticket.charge_ = Charge(this, MemoryKind::kStaging, bytes);
  return ticket;
}

}  // namespace swiglu::server
