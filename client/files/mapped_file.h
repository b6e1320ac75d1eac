// SPDX-License-Identifier: Apache-2.0
//
// Gives a program the bytes of a file through a memory mapping, without copying them.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace swiglu::files {

// A regular file mapped for reading. The file must keep its size while this object lives. If
// another process cuts bytes off the file's end, the cut bytes that lie in the last remaining page
// become zeros. Touching bytes beyond that page ends this process with SIGBUS, as with any mapping.
// TruncationWatch makes the process print a line before it ends.
class MappedFile {
 public:
  // Opens and maps `path`. Errors, each a sentence that begins with the path: NOT_FOUND,
  // PERMISSION_DENIED, FAILED_PRECONDITION if it is not a regular file, and for the rest the code
  // that absl::ErrnoToStatus gives.
  static absl::StatusOr<std::unique_ptr<MappedFile>> Open(const std::string& path);

  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile();

  const std::string& path() const { return path_; }
  absl::Span<const std::byte> bytes() const { return {data_, size_bytes_}; }

  // OK if the file still has all of its bytes. Then every byte read so far was the file's own.
  // DATA_LOSS, with the path in the message, if the file was cut short.
  absl::Status CheckWhole() const;

 private:
  MappedFile(std::string path, int fd) : path_(std::move(path)), fd_(fd) {}

  const std::string path_;
  const int fd_;
  const std::byte* data_ = nullptr;  // nullptr for an empty file
  size_t size_bytes_ = 0;
};

// Watches some mapped files while it lives. If another process cuts bytes off one of them, and this
// process touches these bytes, this process ends with an exit code. It first prints the line
// `PROGRAM: FILE: was cut short while it was read` on stderr. SIGBUS for any other reason has its
// default effect. At most one lives at a time. Not thread-safe, but any thread may touch the bytes.
class TruncationWatch {
 public:
  // REQUIRES: the `files` outlive it.
  TruncationWatch(absl::string_view program, int exit_code,
                  absl::Span<const MappedFile* const> files);
  ~TruncationWatch();
  TruncationWatch(const TruncationWatch&) = delete;
  TruncationWatch& operator=(const TruncationWatch&) = delete;

 private:
  struct Range {
    absl::Span<const std::byte> bytes;
    std::string line;
  };

  static void OnSigbus(int signal, void* address);

  const int exit_code_;
  std::vector<Range> ranges_;
};

}  // namespace swiglu::files
