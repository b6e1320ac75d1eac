// SPDX-License-Identifier: Apache-2.0
//
// Figures of what a server has, and trials of them.
#include "server/start_check.h"

#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include <algorithm>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/base/descriptor.h"

namespace swiglu::server {
namespace {

// Of an idle server: 17 descriptors (signals, events, the listening sockets, those of gRPC's event
// loops), and then some for connections. A thread for each of these: the log, signals, the metrics
// page, accepting, the ticker, the batcher's clock, messages that come, floods, the GPU
// monitor, the regions, the watchdog of the I/O threads and their four reserves; and seven of
// gRPC's.
constexpr int kDescriptors = 32;
constexpr int kThreadsOfTheServer = 15;
constexpr int kThreadsOfGrpc = 7;

// What the program takes beyond its budget, as docs/operations/running.md says.
constexpr int64_t kBesideBudgetBytes = int64_t{100} << 20;

// gRPC's quota for messages is half of the budget and 64 MiB, or 32 MiB on a unix socket: what is
// received in a burst can be there before it is refused. The other half of the budget is for slabs.
// One more half is spare.
constexpr int64_t kHalvesOfBudget = 3;

// More than any address space has.
constexpr int64_t kMostBytes = int64_t{1} << 60;

constexpr char kCannotStart[] = "cannot start: ";

bool IsLimited(int resource) {
  rlimit limit{};
  return ::getrlimit(static_cast<__rlimit_resource>(resource), &limit) == 0 &&
         limit.rlim_cur != RLIM_INFINITY;
}

int64_t StackBytes() {
  pthread_attr_t attributes;
  size_t stack_bytes = 0;
  if (::pthread_attr_init(&attributes) != 0) return 0;
  ::pthread_attr_getstacksize(&attributes, &stack_bytes);
  ::pthread_attr_destroy(&attributes);
  return static_cast<int64_t>(stack_bytes);
}

absl::Status CheckDescriptors(int needed) {
  std::vector<Descriptor> taken;
  for (int i = 0; i < needed; ++i) {
    taken.emplace_back(::eventfd(0, EFD_CLOEXEC));
    if (taken.back().get() >= 0) continue;
    return absl::ResourceExhaustedError(absl::StrCat(kCannotStart, needed,
                                                     " more file descriptors are needed, and ", i,
                                                     " are to be had (ulimit -n)"));
  }
  return absl::OkStatus();
}

absl::Status CheckAddressSpace(int64_t needed_bytes) {
  if (!IsLimited(RLIMIT_AS) && !IsLimited(RLIMIT_DATA)) return absl::OkStatus();
  const auto size = static_cast<size_t>(needed_bytes);
  void* const taken = ::mmap(nullptr, size, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (taken == MAP_FAILED) {
    return absl::ResourceExhaustedError(absl::StrCat(
        kCannotStart, needed_bytes, " more bytes of address space are needed, for ",
        "--memory_budget_bytes, stacks and libraries, and are not to be had (ulimit -v, -d)"));
  }
  ::munmap(taken, size);
  return absl::OkStatus();
}

absl::Status CheckThreads(int needed) {
  std::mutex held;
  std::vector<std::thread> threads;
  absl::Status status = absl::OkStatus();
  {
    const std::lock_guard hold(held);
    try {
      threads.reserve(static_cast<size_t>(needed));
      while (static_cast<int>(threads.size()) < needed) {
        threads.emplace_back([&held] { const std::lock_guard wait(held); });
      }
    } catch (const std::system_error&) {
      status = absl::ResourceExhaustedError(
          absl::StrCat(kCannotStart, needed, " more threads are needed, and ", threads.size(),
                       " are to be had (ulimit -u, or pids.max of the control group)"));
    }
  }
  for (std::thread& thread : threads) thread.join();
  return status;
}

}  // namespace

StartNeeds NeedsOfServer(int io_threads, int lane_threads, int cores, int64_t memory_budget_bytes) {
  // gRPC has threads by cores. Element-wise batches of the CPU run on the I/O threads.
  return {.descriptors = kDescriptors,
          .threads = kThreadsOfTheServer + kThreadsOfGrpc + io_threads + lane_threads + 2 * cores,
          .address_space_bytes =
              std::min(memory_budget_bytes, kMostBytes) / 2 * kHalvesOfBudget + kBesideBudgetBytes};
}

absl::Status CheckStart(const StartNeeds& needs) {
  if (absl::Status status = CheckDescriptors(needs.descriptors); !status.ok()) return status;
  // Before the threads, which also fail where there is no room for their stacks.
  const int64_t stacks_bytes = needs.threads * StackBytes();
  if (absl::Status status = CheckAddressSpace(needs.address_space_bytes + stacks_bytes);
      !status.ok()) {
    return status;
  }
  return CheckThreads(needs.threads);
}

}  // namespace swiglu::server
