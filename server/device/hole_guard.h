// SPDX-License-Identifier: Apache-2.0
//
// Keeps the process alive when it touches a part of a mapped file that another process has cut off.
// docs/adr/0015 says why it is done like this.
#pragma once

#include <cstddef>

namespace swiglu::server {

// Guards a shared mapping of a file while it lives. The kernel answers an access to a part that the
// file no longer has with SIGBUS. The guard's signal handler then puts pages of zeros in the place
// of that part and of everything behind it, and the access goes on with these. The file is left
// alone. A SIGBUS for any other reason has its default effect. Any thread may touch the mapping.
class HoleGuard {
 public:
  // REQUIRES: `data` and `size_bytes` are multiples of `page_bytes`, the size of the mapping's
  // pages.
  HoleGuard(std::byte* data, size_t size_bytes, size_t page_bytes);
  ~HoleGuard();
  HoleGuard(const HoleGuard&) = delete;
  HoleGuard& operator=(const HoleGuard&) = delete;

  // Whether the guard has had to put in pages of zeros.
  bool met_hole() const;

 private:
  class Slot;
  friend class SlotList;

  Slot* const slot_;
};

}  // namespace swiglu::server
