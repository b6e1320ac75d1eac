// SPDX-License-Identifier: Apache-2.0
//
// A file's bytes, read through a memory mapping: nothing is copied.
#pragma once

#include <cstddef>
#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace swiglu::files {

// A regular file mapped for reading. Move-only. The file must keep its size while this lives:
// touching pages that another process has cut off ends this one with SIGBUS, as with any mapping.
class MappedFile {
 public:
  // Opens and maps `path`. Errors, each a sentence that begins with the path: NOT_FOUND,
  // PERMISSION_DENIED, FAILED_PRECONDITION for what is no regular file, UNKNOWN for the rest.
  static absl::StatusOr<MappedFile> Open(const std::string& path);

  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  absl::Span<const std::byte> bytes() const { return {data_, size_bytes_}; }

 private:
  MappedFile(const std::byte* data, size_t size_bytes) : data_(data), size_bytes_(size_bytes) {}

  const std::byte* data_ = nullptr;  // nullptr for an empty file
  size_t size_bytes_ = 0;
};

}  // namespace swiglu::files
