// SPDX-License-Identifier: Apache-2.0
//
// The counters behind admission. See the header for the contract.
#include "server/batching/admission.h"

namespace swiglu::server {

Charge::~Charge() {
  if (admission_ != nullptr) admission_->Take(kind_, -bytes_);
}

void Charge::MoveTo(MemoryKind kind) {
  if (admission_ == nullptr) return;
  admission_->used_by_kind_[static_cast<int>(kind_)].fetch_sub(bytes_, std::memory_order_relaxed);
  admission_->used_by_kind_[static_cast<int>(kind)].fetch_add(bytes_, std::memory_order_relaxed);
  kind_ = kind;
}

bool Charge::Resize(int64_t bytes) {
  if (!admission_->Take(kind_, bytes - bytes_)) return false;
  bytes_ = bytes;
  return true;
}

void Ticket::LeaveQueue() {
  if (admission_ == nullptr) return;
  std::exchange(admission_, nullptr)->queued_.fetch_sub(1, std::memory_order_relaxed);
}

bool Admission::Raise(std::atomic<int64_t>& counter, int64_t amount, int64_t limit) {
  int64_t seen = counter.load(std::memory_order_relaxed);
  do {
    if (seen > limit - amount) return false;
  } while (!counter.compare_exchange_weak(seen, seen + amount, std::memory_order_relaxed));
  return true;
}

bool Admission::Take(MemoryKind kind, int64_t bytes) {
  if (bytes > 0 && !Raise(HalfOf(kind), bytes, half_budget_bytes())) return false;
  used_by_kind_[static_cast<int>(kind)].fetch_add(bytes, std::memory_order_relaxed);
  // Last, so that a kind's figure never shows more than its half allows.
  if (bytes < 0) HalfOf(kind).fetch_add(bytes, std::memory_order_relaxed);
  return true;
}

absl::variant<Charge, Rejection> Admission::Reserve(int64_t bytes) {
  if (draining()) return Rejection::kDraining;
  if (bytes > half_budget_bytes()) return Rejection::kTooLarge;
  if (queued_requests() >= options_.max_queued_requests) return Rejection::kQueueFull;
  if (!Take(MemoryKind::kReceive, bytes)) return Rejection::kBudget;
  return Charge(this, MemoryKind::kReceive, bytes);
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
  Ticket ticket(this, Charge());
  if (!Take(MemoryKind::kStaging, bytes)) return Rejection::kBudget;
  ticket.charge_ = Charge(this, MemoryKind::kStaging, bytes);
  return ticket;
}

}  // namespace swiglu::server
