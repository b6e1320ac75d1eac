// SPDX-License-Identifier: Apache-2.0
//
// Ends the process in an orderly way when it touches a part of a mapped file that has been cut off.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "client/files/mapped_file.h"

namespace swiglu::files {

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
