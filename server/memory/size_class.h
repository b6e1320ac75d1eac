// SPDX-License-Identifier: Apache-2.0
//
// The sizes in which a slab pool keeps memory. Slabs of similar sizes share a class, so a request
// can often use a slab that another request gave back. Pure functions.
#pragma once

#include <bit>
#include <cstddef>

namespace swiglu::server {

// The classes are 4, 8 and 16 KiB, and then four per doubling: 20, 24, 28, 32, 40 KiB and so on.
// They are whole pages, because memory is pinned in pages. From 16 KiB up, a class is at most a
// quarter larger than the requested size.
inline constexpr size_t kSmallestSlabBytes = size_t{4} << 10;
inline constexpr size_t kFirstSteppedSlabBytes = size_t{16} << 10;
inline constexpr size_t kStepsPerDoubling = 4;

// The largest class. There are no larger slabs.
inline constexpr size_t kLargestSlabBytes = size_t{1} << 62;

// The class of `size_bytes`, counted from 0. REQUIRES: 0 < size_bytes <= kLargestSlabBytes.
constexpr int SizeClass(size_t size_bytes) {
  if (size_bytes <= kSmallestSlabBytes) return 0;
  const int log2 = std::bit_width(size_bytes - 1) - 1;  // 2^log2 < size_bytes <= 2^(log2 + 1)
  constexpr int kSmallestLog2 = std::bit_width(kSmallestSlabBytes) - 1;
  constexpr int kFirstSteppedLog2 = std::bit_width(kFirstSteppedSlabBytes) - 1;
  if (size_bytes <= kFirstSteppedSlabBytes) return log2 + 1 - kSmallestLog2;
  const size_t step_bytes = (size_t{1} << log2) / kStepsPerDoubling;
  const size_t step =
      (size_bytes - 1 - (size_t{1} << log2)) / step_bytes + 1;  // 1 to kStepsPerDoubling
  return kFirstSteppedLog2 - kSmallestLog2 +
         (log2 - kFirstSteppedLog2) * static_cast<int>(kStepsPerDoubling) + static_cast<int>(step);
}

// The bytes of a slab of that class.
constexpr size_t SizeClassBytes(int size_class) {
  constexpr int kNumUnstepped = std::bit_width(kFirstSteppedSlabBytes / kSmallestSlabBytes) - 1;
  if (size_class <= kNumUnstepped) return kSmallestSlabBytes << size_class;
  const size_t steps = static_cast<size_t>(size_class - kNumUnstepped);
  const size_t base_bytes = kFirstSteppedSlabBytes << (steps / kStepsPerDoubling);
  return base_bytes + steps % kStepsPerDoubling * (base_bytes / kStepsPerDoubling);
}

inline constexpr int kNumSizeClasses = SizeClass(kLargestSlabBytes) + 1;

}  // namespace swiglu::server
