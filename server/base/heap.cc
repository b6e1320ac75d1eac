// SPDX-License-Identifier: Apache-2.0
//
// Calls tcmalloc's own functions if the program is linked with tcmalloc.
#include "server/base/heap.h"

#include <gperftools/malloc_extension_c.h>

#include <cstddef>

// Weak, so that these functions are null if another allocator is linked.
#pragma weak MallocExtension_GetNumericProperty
#pragma weak MallocExtension_ReleaseToSystem

namespace swiglu::server {

void ReleaseUnusedHeap(int64_t most_bytes) {
  if (MallocExtension_GetNumericProperty == nullptr || MallocExtension_ReleaseToSystem == nullptr) {
    return;
  }
  size_t heap_bytes = 0;
  size_t returned_bytes = 0;
  if (MallocExtension_GetNumericProperty("generic.heap_size", &heap_bytes) == 0 ||
      MallocExtension_GetNumericProperty("tcmalloc.pageheap_unmapped_bytes", &returned_bytes) ==
          0) {
    return;
  }
  const auto held_bytes = static_cast<int64_t>(heap_bytes - returned_bytes);
  if (held_bytes > most_bytes) {
    MallocExtension_ReleaseToSystem(static_cast<size_t>(held_bytes - most_bytes));
  }
}

}  // namespace swiglu::server
