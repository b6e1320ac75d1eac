// SPDX-License-Identifier: Apache-2.0
//
// How much of the system's memory the allocator, tcmalloc, holds.
#pragma once

#include <cstdint>

namespace swiglu::server {

// Makes the allocator give unused memory back to the system, until it holds at most `most_bytes` or
// has no unused memory left. Memory that is used again later costs page faults. Does nothing where
// the allocator is another one (under the sanitizers). Thread-safe; takes less than a microsecond
// where there is nothing to do.
void ReleaseUnusedHeap(int64_t most_bytes);

}  // namespace swiglu::server
