// SPDX-License-Identifier: Apache-2.0
//
// A file's bytes, read through a memory mapping: nothing is copied.
#pragma once

#include <cstddef>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace swiglu::files {

// A regular file mapped for reading. Move-only. The file must keep its size while this lives. If
// another process cuts bytes off, those in the last page become zeros. Touching bytes beyond that
// page ends this process with SIGBUS, as with any mapping. TruncationWatch makes the process print
// a line before it ends.
class MappedFile {
 public:
  // Opens and maps `path`. Errors, each a sentence that begins with the path: NOT_FOUND,
  // PERMISSION_DENIED, FAILED_PRECONDITION if it is not a regular file, UNKNOWN for the rest.
  static absl::StatusOr<MappedFile> Open(const std::string& path);

  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  const std::string& path() const { return path_; }
  absl::Span<const std::byte> bytes() const { return {data_, size_bytes_}; }

  // OK if the file still has all of its bytes. DATA_LOSS, naming the file, if it was cut short. If
  // this returns OK, everything that was read before is right.
  absl::Status CheckWhole() const;

 private:
  MappedFile(std::string path, int fd) : path_(std::move(path)), fd_(fd) {}

  std::string path_;
  int fd_;                           // -1 once it is moved from
  const std::byte* data_ = nullptr;  // nullptr for an empty file
  size_t size_bytes_ = 0;
};

}  // namespace swiglu::files
