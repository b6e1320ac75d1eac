// SPDX-License-Identifier: Apache-2.0
//
// Admission decides at once whether the server takes a request or a message. It counts requests and
// bytes, and limits both. It has only counters; it owns neither requests nor memory. `StartDrain`
// begins a drain.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>

#include "absl/types/variant.h"
#include "server/core/observer.h"

namespace swiglu::server {

// What charged bytes of the budget are used for. The metric label `kind`.
enum class MemoryKind : uint8_t { kReceive, kStaging, kResponse };
inline constexpr int kNumMemoryKinds = 3;

class Admission;

// How much of the budget's half for messages one connection holds. Thread-safe.
class ReceiveShare {
 public:
  int64_t bytes() const { return bytes_.load(std::memory_order_relaxed); }

 private:
  friend class Admission;
  std::atomic<int64_t> bytes_{0};
};

// A move-only claim on bytes of the memory budget. Its destructor gives the bytes back. Not
// thread-safe. The `Admission` must outlive the charge.
class Charge {
 public:
  Charge() = default;
  Charge(Charge&& other) noexcept { Swap(other); }
  Charge& operator=(Charge&& other) noexcept {
    Charge(std::move(other)).Swap(*this);
    return *this;
  }
  ~Charge();

  // Counts the bytes under `kind` from now on. REQUIRES: `kind` is in the same half as the present
  // kind.
  void MoveTo(MemoryKind kind);
  // Changes the claim to `bytes`. A larger claim needs room: without it, returns false and changes
  // nothing. A smaller claim always succeeds. REQUIRES: `is_held()`.
  bool Resize(int64_t bytes);
  // Moves up to `bytes` from `other`, a charge of the same connection, into this charge. Does
  // nothing if `bytes` is 0 or negative.
  void TakeFrom(Charge& other, int64_t bytes);
  int64_t bytes() const { return bytes_; }
  bool is_held() const { return admission_ != nullptr; }

 private:
  friend class Admission;
  Charge(Admission* admission, MemoryKind kind, int64_t bytes,
         std::shared_ptr<ReceiveShare> share = nullptr)
      : admission_(admission), kind_(kind), bytes_(bytes), share_(std::move(share)) {}
  void Swap(Charge& other) noexcept {
    std::swap(admission_, other.admission_);
    std::swap(kind_, other.kind_);
    std::swap(bytes_, other.bytes_);
    std::swap(share_, other.share_);
  }

  Admission* admission_ = nullptr;  // nullptr: nothing is held
  MemoryKind kind_ = MemoryKind::kReceive;
  int64_t bytes_ = 0;
  std::shared_ptr<ReceiveShare> share_;  // nullptr: belongs to no connection
};

// An admitted request's place in the queue, together with its charge. `LeaveQueue` or the
// destructor gives the place back. Move-only, not thread-safe.
class Ticket {
 public:
  Ticket() = default;

  // Frees the place in the queue; the bytes stay charged. Does nothing the second time.
  void LeaveQueue() { place_.reset(); }

  // Moves the charge out. Keep the charge as long as the memory for which it was made.
  Charge TakeCharge() { return std::move(charge_); }
  Charge& charge() { return charge_; }
  const Charge& charge() const { return charge_; }

 private:
  friend class Admission;
  struct Leave {
    void operator()(Admission* admission) const;
  };
  explicit Ticket(Admission* admission) : place_(admission) {}

  Charge charge_;
  std::unique_ptr<Admission, Leave> place_;  // nullptr: holds no place
};

struct AdmissionOptions {
  // The most accepted requests that are in no batch yet. >= 1.
  int64_t max_queued_requests = 4096;
  // All memory that requests can make the server hold, in bytes. One half is for messages that are
  // received. The other half is for slabs and answers. Each half has its own limit, because memory
  // that one half gives back stays in that half's allocator, where the other half cannot use it.
  // The budget is at least 2.
  int64_t memory_budget_bytes = int64_t{1} << 30;
  // Messages of up to kSmallMessageBytes may use this many bytes beyond the half for messages. So
  // the server takes small messages even when large ones fill that half. >= 0.
  int64_t small_message_reserve_bytes = 0;
};

// Admits or rejects. Thread-safe, lock-free, never blocks.
class Admission {
 public:
  // Messages up to this size may use `small_message_reserve_bytes`.
  static constexpr int64_t kSmallMessageBytes = int64_t{64} << 10;
  // While other connections hold bytes, a connection may hold at most kMostPerFree times the bytes
  // that remain free. So it holds at most seven eighths of what the other connections leave free.
  static constexpr int64_t kMostPerFree = 7;
  // For this long after a message was refused for lack of room, `WasShortOfLate` returns true.
  static constexpr std::chrono::seconds kShort{1};

  explicit Admission(AdmissionOptions options) : options_(options) {}
  Admission(const Admission&) = delete;
  Admission& operator=(const Admission&) = delete;

  // Charges `bytes` for a message that is about to be received, or says why the server cannot take
  // it. kDraining: the server drains. kQueueFull: the queue has no place for the message's request.
  // kBudget: too little of the half for messages is free, or the connection of `share` would hold
  // too much of this half. kTooLarge: the message can never fit. If `share` is nullptr, the limit
  // for one connection does not apply.
  absl::variant<Charge, Rejection> Reserve(int64_t bytes,
                                           std::shared_ptr<ReceiveShare> share = nullptr);

  // Charges `bytes` more for messages that are being received. nullopt if there is no room.
  std::optional<Charge> ClaimGrowth(int64_t bytes, std::shared_ptr<ReceiveShare> share);

  // Explains why `bytes` were refused for lack of room. Returns true if the half for messages has
  // room for `bytes` and the connection of `share` holds bytes already. Then the limit for one
  // connection was the reason.
  bool IsShareInUse(int64_t bytes, const ReceiveShare& share) const;

  // Whether a message was refused for lack of room within the last `kShort`.
  bool WasShortOfLate() const;

  // The largest size of an unannounced message: 3/4 of the half for messages. One connection may
  // usually hold more, namely 7/8 of what other connections leave free. So a message that grows too
  // large is usually refused as too large, and not for lack of room.
  int64_t max_unannounced_bytes() const { return half_budget_bytes() / 4 * 3; }
  // The bytes that are reserved for a message of unknown size. A call takes about as many bytes in
  // any case, even before its message arrives.
  int64_t first_message_bytes() const {
    return std::min(int64_t{16} << 10, half_budget_bytes() / 64);
  }

  // Takes a place in the queue and charges `bytes` of memory for tensors. If that is not possible,
  // takes and charges nothing, and returns one of the reasons of `Reserve`.
  absl::variant<Ticket, Rejection> Admit(int64_t bytes);

  // Charges `bytes` for an answer that exists already, as kResponse. The charge may exceed what is
  // free in the half for slabs and answers. This half then has no room until bytes are given back.
  Charge ChargeAnswer(int64_t bytes);
  // Whether the half for slabs and answers has any room.
  bool HasRoomForAnswers() const {
    return slab_bytes_.load(std::memory_order_relaxed) < half_budget_bytes();
  }

  // From now on, `Reserve` and `Admit` return kDraining. Idempotent.
  void StartDrain() { draining_.store(true, std::memory_order_relaxed); }
  bool draining() const { return draining_.load(std::memory_order_relaxed); }

  const AdmissionOptions& options() const { return options_; }
  // The most bytes that one message, or one request's slabs, can have.
  int64_t half_budget_bytes() const { return options_.memory_budget_bytes / 2; }
  // Whether `message` and `ticket` are all that the server holds. If so, it is not receiving,
  // computing or answering any other request.
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
  // Adds `bytes`, which may be negative, to the bytes held in the half of `kind`. `total_bytes` is
  // the size of the charge afterwards. Returns false if there is no room.
  bool Take(MemoryKind kind, int64_t bytes, int64_t total_bytes, ReceiveShare* share);
  // Adds `bytes` to the half for messages if there is room. Returns whether it did.
  bool RaiseReceived(int64_t bytes, int64_t total_bytes, const ReceiveShare* share);
  int64_t LimitOf(int64_t total_bytes) const {
    const bool is_small = total_bytes <= kSmallMessageBytes;
    return half_budget_bytes() + (is_small ? options_.small_message_reserve_bytes : 0);
  }
  // Raises `counter` by `amount`, or returns false if it would exceed `limit`.
  static bool Raise(std::atomic<int64_t>& counter, int64_t amount, int64_t limit);

  const AdmissionOptions options_;
  std::atomic<bool> draining_{false};
  std::atomic<int64_t> queued_{0};
  std::atomic<int64_t> received_bytes_{0};  // of kReceive
  std::atomic<int64_t> slab_bytes_{0};      // of the other kinds
  std::atomic<int64_t> used_by_kind_[kNumMemoryKinds] = {};
  std::atomic<std::chrono::steady_clock::rep> short_at_{0};  // since the clock's epoch
};

}  // namespace swiglu::server
