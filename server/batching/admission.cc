// SPDX-License-Identifier: Apache-2.0
//
// The counters behind admission. See the header for the contract.
#include "server/batching/admission.h"

namespace swiglu::server {

Charge::~Charge() {
  if (admission_ == nullptr) return;
  admission_->used_by_kind_[static_cast<int>(kind_)].fetch_sub(bytes_, std::memory_order_relaxed);
  admission_->used_bytes_.fetch_sub(bytes_, std::memory_order_relaxed);
}

void Charge::MoveTo(MemoryKind kind) {
  if (admission_ == nullptr) return;
  admission_->used_by_kind_[static_cast<int>(kind_)].fetch_sub(bytes_, std::memory_order_relaxed);
  admission_->used_by_kind_[static_cast<int>(kind)].fetch_add(bytes_, std::memory_order_relaxed);
  kind_ = kind;
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

absl::variant<Ticket, Rejection> Admission::Admit(int64_t bytes, int64_t charged_bytes) {
  if (draining()) return Rejection::kDraining;
  if (bytes > options_.memory_budget_bytes - charged_bytes) return Rejection::kTooLarge;
  if (!Raise(queued_, 1, options_.max_queued_requests)) return Rejection::kQueueFull;
  Ticket ticket(this, Charge());
  if (!Raise(used_bytes_, bytes, options_.memory_budget_bytes)) return Rejection::kBudget;
  used_by_kind_[static_cast<int>(MemoryKind::kStaging)].fetch_add(bytes, std::memory_order_relaxed);
  ticket.charge_ = Charge(this, MemoryKind::kStaging, bytes);
  return ticket;
}

Charge Admission::ChargeReceived(int64_t bytes) {
  used_bytes_.fetch_add(bytes, std::memory_order_relaxed);
  used_by_kind_[static_cast<int>(MemoryKind::kReceive)].fetch_add(bytes, std::memory_order_relaxed);
  return Charge(this, MemoryKind::kReceive, bytes);
}

}  // namespace swiglu::server
