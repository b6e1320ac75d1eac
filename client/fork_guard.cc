// SPDX-License-Identifier: Apache-2.0
//
// Counts forks, in the child.
#include "client/fork_guard.h"

#include <pthread.h>

#include <atomic>

namespace swiglu::client {
namespace {

// How many forks lie between the first process of the library and this one.
std::atomic<int> num_forks{0};
std::atomic<bool> has_guards{false};
std::atomic<bool> had_guards_before_fork{false};

void CountForks() {
  [[maybe_unused]] static const int result = pthread_atfork(nullptr, nullptr, [] {
    num_forks.fetch_add(1, std::memory_order_relaxed);
    if (has_guards.load(std::memory_order_relaxed)) {
      had_guards_before_fork.store(true, std::memory_order_relaxed);
    }
  });
}

}  // namespace

int ForkGuard::NumForks() {
  CountForks();
  return num_forks.load(std::memory_order_relaxed);
}

ForkGuard::ForkGuard() : generation_(NumForks()) {
  has_guards.store(true, std::memory_order_relaxed);
}

bool ForkGuard::IsInChild() const {
  return num_forks.load(std::memory_order_relaxed) != generation_;
}

absl::Status ForkGuard::Check() const {
  if (!IsInChild()) return absl::OkStatus();
  return absl::FailedPreconditionError(
      "this client was made before fork(); its threads do not exist in the child: start a new "
      "program, or fork before the first client is made");
}

absl::Status ForkGuard::CheckNew() {
  if (!had_guards_before_fork.load(std::memory_order_relaxed)) return absl::OkStatus();
  return absl::FailedPreconditionError(
      "this process was forked from one that had a client; gRPC cannot be used here: start a new "
      "program, or fork before the first client is made");
}

}  // namespace swiglu::client
