// SPDX-License-Identifier: Apache-2.0
//
// A file that appears whole or not at all: written under a temporary name in its folder, then
// renamed.
#pragma once

#include <cstddef>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace swiglu::files {

// Whether a file may take the place of another.
enum class IfExists { kFail, kOverwrite };

// OK if `path` is free or may be overwritten, ALREADY_EXISTS otherwise: an early word on what
// Commit decides.
absl::Status CheckMayWrite(const std::string& path, IfExists if_exists);

// One file on its way. Move-only, not thread-safe. Destroyed before Commit, it leaves nothing
// behind. Messages begin with the path.
class OutputFile {
 public:
  // Makes the temporary file beside `path`. Fails if the folder is missing or may not be written.
  static absl::StatusOr<OutputFile> Create(const std::string& path, IfExists if_exists);

  OutputFile(OutputFile&& other) noexcept;
  OutputFile& operator=(OutputFile&&) = delete;
  ~OutputFile();

  // Appends. On error the file is of no more use.
  absl::Status Write(absl::Span<const std::byte> bytes);

  // Makes the bytes durable and gives the file its name. ALREADY_EXISTS, and nothing changed, if
  // another file has it and may not be overwritten. Call once.
  absl::Status Commit();

 private:
  OutputFile(std::string path, std::string temporary, int fd, IfExists if_exists);

  std::string path_;
  std::string temporary_;  // empty once the file has its name
  int fd_;
  IfExists if_exists_;
};

}  // namespace swiglu::files
