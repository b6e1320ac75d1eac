// SPDX-License-Identifier: Apache-2.0
//
// gRPC calls back when it drops a slice that borrows its memory.
#include "client/outgoing_message.h"

#include <utility>

namespace swiglu::client {

grpc::Slice Loan::Lend(absl::Span<const std::byte> bytes) {
  num_lent_.fetch_add(1, std::memory_order_relaxed);
  return grpc::Slice(const_cast<std::byte*>(bytes.data()), bytes.size(), &Loan::TakeBack, this);
}

// When the count reaches zero, the owner may destroy the loan, so nothing touches it after that.
void Loan::TakeBack(void* loan) {
  static_cast<Loan*>(loan)->num_lent_.fetch_sub(1, std::memory_order_release);
}

void OutgoingMessage::Append(grpc::Slice slice) {
  size_bytes += static_cast<int64_t>(slice.size());
  slices.push_back(std::move(slice));
}

}  // namespace swiglu::client
