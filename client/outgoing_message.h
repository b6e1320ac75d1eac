// SPDX-License-Identifier: Apache-2.0
//
// A message to send: slices that own their bytes, or borrow those of a caller.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "absl/types/span.h"
#include "client/event_queue.h"
#include "grpcpp/support/slice.h"

namespace swiglu::client {

// Counts how many slices over borrowed memory gRPC still holds. gRPC drops them when the kernel has
// taken the bytes, which may be after the call has ended. Thread-safe. Must outlive its slices.
class Loan {
 public:
  // A slice over `bytes` without a copy. REQUIRES: `bytes` is not empty.
  grpc::Slice Lend(absl::Span<const std::byte> bytes);

  // Whether gRPC has released every slice. If so, nobody but the caller uses the memory.
  bool IsRepaid() const { return num_lent_.load(std::memory_order_acquire) == 0; }

 private:
  static void TakeBack(void* loan);

  std::atomic<int> num_lent_{0};
};

// Calls `then` when gRPC has released every slice of `loan`: at once, or as an event of `queue`.
void WhenRepaid(const Loan* loan, EventQueue* queue, std::function<void()> then);

struct OutgoingMessage {
  void Append(grpc::Slice slice);

  std::vector<grpc::Slice> slices;
  int64_t size_bytes = 0;
};

}  // namespace swiglu::client
