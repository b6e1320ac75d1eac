// SPDX-License-Identifier: Apache-2.0
//
// Keeps the process alive when it touches a part of a mapped file that another process has cut off.
// docs/adr/0015 explains the design.
#pragma once

#include <cstddef>

namespace swiglu::server {

// Guards a shared mapping of a file as long as the guard lives. If a thread accesses a part that
// the file no longer has, the operating system sends SIGBUS. The guard's signal handler then maps
// pages of zeros in place of that part and everything behind it, and the access continues with
// these pages. The file itself does not change. A SIGBUS for any other reason has its default
// effect. Any thread may touch the mapping.
class HoleGuard {
 public:
  // REQUIRES: `data` and `size_bytes` are multiples of `page_bytes`, the size of the mapping's
  // pages.
  HoleGuard(std::byte* data, size_t size_bytes, size_t page_bytes);
  ~HoleGuard();
  HoleGuard(const HoleGuard&) = delete;
  HoleGuard& operator=(const HoleGuard&) = delete;

  // Whether the guard has had to map pages of zeros.
  bool met_hole() const;

 private:
  class Slot;
  friend class SlotList;

  Slot* const slot_;
};

}  // namespace swiglu::server
