// SPDX-License-Identifier: Apache-2.0
//
// Takes what comes through a pipe into memory, up to a limit.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/types/span.h"

namespace swiglu::files {

// The bytes that a stream gave so far. Move-only. Not thread-safe.
class StreamBytes {
 public:
  // Reads from `fd` until there are `num_bytes` in all, or until the end of the stream. Blocks
  // until then. RESOURCE_EXHAUSTED if there is no memory for the bytes; otherwise the code that
  // absl::ErrnoToStatus gives.
  absl::Status ReadUntil(int fd, uint64_t num_bytes);

  absl::Span<const std::byte> bytes() const { return {bytes_.get(), size_bytes_}; }

 private:
  struct Unmap {
    void operator()(std::byte* bytes) const;

    size_t capacity_bytes;  // of the pages; 0 for none, as unique_ptr initialises it
  };

  absl::Status Grow(size_t capacity_bytes);

  std::unique_ptr<std::byte, Unmap> bytes_;
  size_t size_bytes_ = 0;
};

}  // namespace swiglu::files
