// SPDX-License-Identifier: Apache-2.0
//
// The end of a process that touches a part of a mapped file which is not there any more.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "client/files/mapped_file.h"

namespace swiglu::files {

// While it lives, touching bytes that another process has cut off from one of some mapped files
// ends this process with an exit code and the line `PROGRAM: FILE: was cut short while it was read`
// on stderr. SIGBUS for any other reason does what it does without a handler. At most one lives at
// a time; not thread-safe, but any thread may do the touching.
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
