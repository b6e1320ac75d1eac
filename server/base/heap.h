// SPDX-License-Identifier: Apache-2.0
//
// Limits how much unused memory the allocator, tcmalloc, holds.
#pragma once

#include <cstdint>

namespace swiglu::server {

// Makes the allocator give unused memory back to the system, until it holds at most `most_bytes` or
// has no unused memory left. If the allocator needs that memory again later, this costs page
// faults. Does nothing in builds without tcmalloc (with sanitizers). Thread-safe. Takes less than a
// microsecond if there is nothing to give back.
void ReleaseUnusedHeap(int64_t most_bytes);

}  // namespace swiglu::server
