// SPDX-License-Identifier: Apache-2.0
//
// Admission: yes or no, at once, in requests and in bytes. It bounds what requests can make the
// server hold, and it is where draining begins. Counters only; it owns no request and no memory.
#pragma once

#include <atomic>
#include <cstdint>
#include <utility>

#include "absl/types/variant.h"
#include "server/batching/observer.h"

namespace swiglu::server {

// What a byte that is charged to the budget is held for; the metric label `kind`.
enum class MemoryKind : uint8_t { kReceive, kStaging, kResponse };
inline constexpr int kNumMemoryKinds = 3;

class Admission;

// A move-only claim on `bytes` of the memory budget, given back on destruction. Not thread-safe.
// The admission must outlive it.
class Charge {
 public:
  Charge() = default;
  Charge(Charge&& other) noexcept { Swap(other); }
  Charge& operator=(Charge&& other) noexcept {
    Charge(std::move(other)).Swap(*this);
    return *this;
  }
  ~Charge();

  // Counts the same bytes under another kind from here on.
  void MoveTo(MemoryKind kind);
  int64_t bytes() const { return bytes_; }

 private:
  friend class Admission;
  Charge(Admission* admission, MemoryKind kind, int64_t bytes)
      : admission_(admission), kind_(kind), bytes_(bytes) {}
  void Swap(Charge& other) noexcept {
    std::swap(admission_, other.admission_);
    std::swap(kind_, other.kind_);
    std::swap(bytes_, other.bytes_);
  }

  Admission* admission_ = nullptr;  // nullptr: nothing is held
  MemoryKind kind_ = MemoryKind::kReceive;
  int64_t bytes_ = 0;
};

// An admitted request's place in the queue, given back by `LeaveQueue` or on destruction, together
// with its charge. Move-only, not thread-safe.
class Ticket {
 public:
  Ticket() = default;
  Ticket(Ticket&& other) noexcept
      : admission_(std::exchange(other.admission_, nullptr)), charge_(std::move(other.charge_)) {}
  Ticket& operator=(Ticket&& other) noexcept {
    LeaveQueue();
    admission_ = std::exchange(other.admission_, nullptr);
    charge_ = std::move(other.charge_);
    return *this;
  }
  ~Ticket() { LeaveQueue(); }

  // Frees the place in the queue; the bytes stay charged. Does nothing the second time.
  void LeaveQueue();

  // Takes the charge out, to be held for as long as the memory is.
  Charge TakeCharge() { return std::move(charge_); }
  Charge& charge() { return charge_; }

 private:
  friend class Admission;
  Ticket(Admission* admission, Charge charge) : admission_(admission), charge_(std::move(charge)) {}

  Admission* admission_ = nullptr;  // nullptr: holds no place
  Charge charge_;
};

struct AdmissionOptions {
  // Accepted requests that are in no batch yet. >= 1.
  int64_t max_queued_requests = 4096;
  // Received messages, slabs in work and responses being sent, together. >= 1.
  int64_t memory_budget_bytes = int64_t{1} << 30;
};

// Admits or rejects. Thread-safe, lock-free, never blocks.
class Admission {
 public:
  explicit Admission(AdmissionOptions options) : options_(options) {}
  Admission(const Admission&) = delete;
  Admission& operator=(const Admission&) = delete;

  // A place in the queue and `bytes` of the budget, or why not: kDraining, kQueueFull, kBudget (the
  // budget is in use) or kTooLarge (it could never fit beside the `charged_bytes` that the same
  // request has charged already). On a rejection nothing more is held.
  absl::variant<Ticket, Rejection> Admit(int64_t bytes, int64_t charged_bytes = 0);

  // Counts a message that gRPC has handed over already: it is there, so this cannot fail.
  Charge ChargeReceived(int64_t bytes);

  // From here on every `Admit` is refused with kDraining. Idempotent.
  void StartDrain() { draining_.store(true, std::memory_order_relaxed); }
  bool draining() const { return draining_.load(std::memory_order_relaxed); }

  const AdmissionOptions& options() const { return options_; }
  int64_t queued_requests() const { return queued_.load(std::memory_order_relaxed); }
  int64_t used_bytes(MemoryKind kind) const {
    return used_by_kind_[static_cast<int>(kind)].load(std::memory_order_relaxed);
  }

 private:
  friend class Charge;
  friend class Ticket;

  // Raises `counter` by `amount` unless it would pass `limit`.
  static bool Raise(std::atomic<int64_t>& counter, int64_t amount, int64_t limit);

  const AdmissionOptions options_;
  std::atomic<bool> draining_{false};
  std::atomic<int64_t> queued_{0};
  std::atomic<int64_t> used_bytes_{0};  // the sum over kinds
  std::atomic<int64_t> used_by_kind_[kNumMemoryKinds] = {};
};

}  // namespace swiglu::server
