// SPDX-License-Identifier: Apache-2.0
//
// gRPC calls back when it drops a slice that borrows its memory.
#include "client/outgoing_message.h"

#include <utility>

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace swiglu::client {
namespace {

// The interval of the checks in the wait for borrowed memory.
constexpr absl::Duration kLoanPollInterval = absl::Milliseconds(1);

}  // namespace

grpc::Slice Loan::Lend(absl::Span<const std::byte> bytes) {
  num_lent_.fetch_add(1, std::memory_order_relaxed);
  return grpc::Slice(const_cast<std::byte*>(bytes.data()), bytes.size(), &Loan::TakeBack, this);
}

// When the count reaches zero, the owner may destroy the loan, so nothing touches it after that.
void Loan::TakeBack(void* loan) {
  static_cast<Loan*>(loan)->num_lent_.fetch_sub(1, std::memory_order_release);
}

// Normally gRPC has released all slices when a call ends. If not, the transport still has bytes to
// send, and polling the queue lets it go on.
void WhenRepaid(const Loan* loan, EventQueue* queue, std::function<void()> then) {
  if (loan->IsRepaid()) return then();
  Timer::Start(queue, absl::Now() + kLoanPollInterval,
               [loan, queue, then = std::move(then)] { WhenRepaid(loan, queue, then); });
}

void OutgoingMessage::Append(grpc::Slice slice) {
  size_bytes += static_cast<int64_t>(slice.size());
  slices.push_back(std::move(slice));
}

}  // namespace swiglu::client
