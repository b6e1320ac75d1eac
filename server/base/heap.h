// SPDX-License-Identifier: Apache-2.0
//
// What the allocator, tcmalloc, holds of the system's memory.
#pragma once

#include <cstdint>

namespace swiglu::server {

// Has the allocator give memory that nobody uses back to the system, until it holds no more than
// `most_bytes`, or nothing unused any more. What is used again afterwards costs page faults. Does
// nothing where the allocator is another one (under the sanitizers). Thread-safe; takes less than a
// microsecond where there is nothing to do.
void ReleaseUnusedHeap(int64_t most_bytes);

}  // namespace swiglu::server
