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

  // Counts the same bytes under another kind of the same half from here on.
  void MoveTo(MemoryKind kind);
  // Claims `bytes` instead. False, and nothing changes, if that is more and there is no room.
  bool Resize(int64_t bytes);
  int64_t bytes() const { return bytes_; }
  bool is_held() const { return admission_ != nullptr; }

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
  const Charge& charge() const { return charge_; }

 private:
  friend class Admission;
  Ticket(Admission* admission, Charge charge) : admission_(admission), charge_(std::move(charge)) {}

  Admission* admission_ = nullptr;  // nullptr: holds no place
  Charge charge_;
};

struct AdmissionOptions {
  // Accepted requests that are in no batch yet. >= 1.
  int64_t max_queued_requests = 4096;
  // All that requests can make the server hold, in bytes: one half for messages that are received,
  // the other for slabs, in work or being sent. Each half is bounded by itself, because memory that
  // one has given back stays with its allocator and is of no use to the other. >= 2.
  int64_t memory_budget_bytes = int64_t{1} << 30;
};

// Admits or rejects. Thread-safe, lock-free, never blocks.
class Admission {
 public:
  explicit Admission(AdmissionOptions options) : options_(options) {}
  Admission(const Admission&) = delete;
  Admission& operator=(const Admission&) = delete;

  // Room for a message of `bytes` that is about to be received, or why not: kDraining, kQueueFull
  // (its request would find no place), kBudget (the half is in use) or kTooLarge (it could never
  // fit).
  absl::variant<Charge, Rejection> Reserve(int64_t bytes);

  // A place in the queue and `bytes` of memory for tensors, or why not, as above. On a rejection
  // nothing more is held.
  absl::variant<Ticket, Rejection> Admit(int64_t bytes);

  // Charges `bytes` of an answer that is there already, as kResponse: also past the half, which
  // then has no room for anything else.
  Charge ChargeAnswer(int64_t bytes);
  // Whether the half for slabs and answers has any room.
  bool HasRoomForAnswers() const {
    return slab_bytes_.load(std::memory_order_relaxed) < half_budget_bytes();
  }

  // From here on everything is refused with kDraining. Idempotent.
  void StartDrain() { draining_.store(true, std::memory_order_relaxed); }
  bool draining() const { return draining_.load(std::memory_order_relaxed); }

  const AdmissionOptions& options() const { return options_; }
  // The most bytes that one message, or one request's slabs, can have.
  int64_t half_budget_bytes() const { return options_.memory_budget_bytes / 2; }
  // Whether nothing is held beside these two: no other request is read, in work or answered.
  bool HoldsOnly(const Charge& message, const Ticket& ticket) const {
    return received_bytes_.load(std::memory_order_relaxed) == message.bytes() &&
           slab_bytes_.load(std::memory_order_relaxed) == ticket.charge().bytes();
  }
  int64_t queued_requests() const { return queued_.load(std::memory_order_relaxed); }
  int64_t used_bytes(MemoryKind kind) const {
    return used_by_kind_[static_cast<int>(kind)].load(std::memory_order_relaxed);
  }

 private:
  friend class Charge;
  friend class Ticket;

  std::atomic<int64_t>& HalfOf(MemoryKind kind) {
    return kind == MemoryKind::kReceive ? received_bytes_ : slab_bytes_;
  }
  // Takes `bytes` more of a half, or fewer if negative. False if there is no room.
  bool Take(MemoryKind kind, int64_t bytes);
  // Raises `counter` by `amount` unless it would pass `limit`.
  static bool Raise(std::atomic<int64_t>& counter, int64_t amount, int64_t limit);

  const AdmissionOptions options_;
  std::atomic<bool> draining_{false};
  std::atomic<int64_t> queued_{0};
  std::atomic<int64_t> received_bytes_{0};  // of kReceive
  std::atomic<int64_t> slab_bytes_{0};      // of the other kinds
  std::atomic<int64_t> used_by_kind_[kNumMemoryKinds] = {};
};

}  // namespace swiglu::server
