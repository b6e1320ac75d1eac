// SPDX-License-Identifier: Apache-2.0
//
// A handler of SIGBUS and the ranges that it knows. The handler may neither allocate nor lock.
#include "server/device/hole_guard.h"

#include <signal.h>
#include <sys/mman.h>

#include <atomic>
#include <cerrno>
#include <cstdint>

#include "absl/synchronization/mutex.h"
#include "server/log/log.h"

namespace swiglu::server {

// One guarded range. Slots are never freed, because a handler may be looking at any of them. A slot
// without a range is used again.
class HoleGuard::Slot {
 public:
  bool is_free() const { return end_.load(std::memory_order_relaxed) == 0; }

  void Set(uintptr_t begin, uintptr_t end, uintptr_t page_bytes) {
    met_hole_.store(false);
    page_bytes_.store(page_bytes);
    begin_.store(begin);
    end_.store(end);
  }
  void Clear() { end_.store(0); }
  bool met_hole() const { return met_hole_.load(); }

  // Fills the hole at `address` with zeros. Returns false if the address is not in the range.
  bool Fill(uintptr_t address) {
    const uintptr_t end = end_.load();
    const uintptr_t begin = begin_.load();
    const uintptr_t page_bytes = page_bytes_.load();
    // The second look at the end finds out whether the slot was used again in between.
    if (end_.load() != end || address < begin || address >= end) return false;
    const uintptr_t page = address / page_bytes * page_bytes;
    met_hole_.store(true);
    // One page is enough to go on, where there is no room for the rest.
    return MapZeros(page, end - page) || MapZeros(page, page_bytes);
  }

  static bool MapZeros(uintptr_t address, size_t size_bytes) {
    return ::mmap(reinterpret_cast<void*>(address), size_bytes, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0) != MAP_FAILED;
  }

  Slot* next = nullptr;  // constant once the slot is in the list

 private:
  std::atomic<uintptr_t> begin_{0};
  std::atomic<uintptr_t> end_{0};  // 0: no range
  std::atomic<uintptr_t> page_bytes_{1};
  std::atomic<bool> met_hole_{false};
};

// All slots of the process.
class SlotList {
 public:
  static HoleGuard::Slot* Take(uintptr_t begin, uintptr_t end, uintptr_t page_bytes) {
    absl::MutexLock lock(&mutex_);
    HoleGuard::Slot* slot = first_.load();
    while (slot != nullptr && !slot->is_free()) slot = slot->next;
    const bool is_new = slot == nullptr;
    if (is_new) slot = new HoleGuard::Slot;
    slot->Set(begin, end, page_bytes);
    if (!is_new) return slot;
    slot->next = first_.load();
    first_.store(slot);
    if (slot->next == nullptr) Install();
    return slot;
  }

  static void GiveBack(HoleGuard::Slot* slot) {
    absl::MutexLock lock(&mutex_);
    slot->Clear();
  }

 private:
  static void Install() {
    struct sigaction action = {};
    action.sa_flags = SA_SIGINFO;
    action.sa_sigaction = OnSigbus;
    CHECK(::sigaction(SIGBUS, &action, nullptr) == 0);
  }

  static void OnSigbus(int signal_number, siginfo_t* info, void*) {
    const int saved_errno = errno;
    const bool is_sent = info->si_code <= 0;  // by a process
    const auto address = reinterpret_cast<uintptr_t>(info->si_addr);
    for (HoleGuard::Slot* slot = first_.load(); slot != nullptr; slot = slot->next) {
      if (info->si_code != BUS_ADRERR || !slot->Fill(address)) continue;
      errno = saved_errno;
      return;
    }
    // An access is made again when this returns, and fails for good.
    ::signal(signal_number, SIG_DFL);
    if (is_sent) ::raise(signal_number);
  }

  static inline absl::Mutex mutex_{absl::kConstInit};
  static inline std::atomic<HoleGuard::Slot*> first_{nullptr};
};

HoleGuard::HoleGuard(std::byte* data, size_t size_bytes, size_t page_bytes)
    : slot_(SlotList::Take(reinterpret_cast<uintptr_t>(data),
                           reinterpret_cast<uintptr_t>(data) + size_bytes, page_bytes)) {}

HoleGuard::~HoleGuard() { SlotList::GiveBack(slot_); }

bool HoleGuard::met_hole() const { return slot_->met_hole(); }

}  // namespace swiglu::server
