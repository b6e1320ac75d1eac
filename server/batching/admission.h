// SPDX-License-Identifier: Apache-2.0
//
// Admission: it decides at once whether the server takes a request or a message, by counting
// requests and bytes. It bounds what requests can make the server hold, and draining begins here.
// Counters only; it owns no request and no memory.
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

// What a charged byte of the budget is used for; the metric label `kind`.
enum class MemoryKind : uint8_t { kReceive, kStaging, kResponse };
inline constexpr int kNumMemoryKinds = 3;

class Admission;

// How much of the half for messages one connection holds. Thread-safe.
class ReceiveShare {
 public:
  int64_t bytes() const { return bytes_.load(std::memory_order_relaxed); }

 private:
  friend class Admission;
  std::atomic<int64_t> bytes_{0};
};

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
  // Changes the claim to `bytes`. Returns false, and changes nothing, if that is more than before
  // and there is no room.
  bool Resize(int64_t bytes);
  // Takes up to `bytes` over from `other`, a charge of the same connection. Does nothing if `bytes`
  // is not above 0.
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
  std::shared_ptr<ReceiveShare> share_;  // nullptr: no connection's
};

// An admitted request's place in the queue, given back by `LeaveQueue` or on destruction, together
// with its charge. Move-only, not thread-safe.
class Ticket {
 public:
  Ticket() = default;

  // Frees the place in the queue; the bytes stay charged. Does nothing the second time.
  void LeaveQueue() { place_.reset(); }

  // Takes the charge out. Hold it as long as the memory that it is for.
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
  // Accepted requests that are in no batch yet. >= 1.
  int64_t max_queued_requests = 4096;
  // All that requests can make the server hold, in bytes. One half is for messages that are
  // received, the other for slabs of requests in work and of answers. Each half is bounded by
  // itself, because memory that one has given back stays with its allocator and is of no use to the
  // other. >= 2.
  int64_t memory_budget_bytes = int64_t{1} << 30;
  // How many bytes messages of up to kSmallMessageBytes may take beyond the first half, so that
  // large messages never keep small ones out. >= 0.
  int64_t small_message_reserve_bytes = 0;
};

// Admits or rejects. Thread-safe, lock-free, never blocks.
class Admission {
 public:
  // Messages up to this size have a reserve of their own.
  static constexpr int64_t kSmallMessageBytes = int64_t{64} << 10;
  // While other connections hold something, one connection holds at most kMostPerFree times the
  // bytes that are still free after that. So it holds at most seven eighths of what the others
  // leave free.
  static constexpr int64_t kMostPerFree = 7;
  // How long room counts as short after a message was refused for lack of room.
  static constexpr std::chrono::seconds kShort{1};

  explicit Admission(AdmissionOptions options) : options_(options) {}
  Admission(const Admission&) = delete;
  Admission& operator=(const Admission&) = delete;

  // Room for a message of `bytes` that is about to be received, or the reason why there is none.
  // kDraining. kQueueFull: its request would find no place. kBudget: the half is in use, or the
  // part of it that the connection of `share` may have. kTooLarge: it could never fit. Without a
  // share, the limit for one connection does not apply.
  absl::variant<Charge, Rejection> Reserve(int64_t bytes,
                                           std::shared_ptr<ReceiveShare> share = nullptr);

  // Room for `bytes` more of messages that are being received; nullopt if there is none.
  std::optional<Charge> ClaimGrowth(int64_t bytes, std::shared_ptr<ReceiveShare> share);

  // True if the half has room for `bytes`. If a message is then refused, the reason is the limit of
  // the connection of `share`.
  bool IsShareInUse(int64_t bytes, const ReceiveShare& share) const;

  // Whether a message was refused lately because there was no room.
  bool WasShortOfLate() const;

  // The largest message whose size nobody announced: 3/4 of the half. While other connections hold
  // something, the limit of one connection is 7/8 of what they leave free. So an unannounced
  // message that grows too large usually reaches 3/4 of the half first, and is refused as too large
  // and not for lack of room.
  int64_t max_unannounced_bytes() const { return half_budget_bytes() / 4 * 3; }
  // What is reserved for a message of unknown size: about as much as a call itself takes.
  int64_t first_message_bytes() const {
    return std::min(int64_t{16} << 10, half_budget_bytes() / 64);
  }

  // A place in the queue and `bytes` of memory for tensors, or one of the reasons of `Reserve`. On
  // a rejection nothing more is held.
  absl::variant<Ticket, Rejection> Admit(int64_t bytes);

  // Charges `bytes` of an answer that exists already, as kResponse, even past the half. The half
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
  // Whether the server holds nothing but these two: it is not reading, computing or answering any
  // other request.
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
  // the size of the charge afterwards. False if there is no room.
  bool Take(MemoryKind kind, int64_t bytes, int64_t total_bytes, ReceiveShare* share);
  // Adds `bytes` to the half for messages if there is room. Returns whether it did.
  bool RaiseReceived(int64_t bytes, int64_t total_bytes, const ReceiveShare* share);
  int64_t LimitOf(int64_t total_bytes) const {
    const bool is_small = total_bytes <= kSmallMessageBytes;
    return half_budget_bytes() + (is_small ? options_.small_message_reserve_bytes : 0);
  }
  // Raises `counter` by `amount` unless it would pass `limit`.
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
