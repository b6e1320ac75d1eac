// SPDX-License-Identifier: Apache-2.0
//
// A folder for results: made if it is not there, and gone again if nothing came of it.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/files/unfinished_files.h"

namespace swiglu::files {

// OK if `path` is a folder that may be written to, or can be made: an early word on what
// OutputFolder::Create and OutputFile::Create decide. One sentence that begins with the path.
absl::Status CheckMayMakeFolder(const std::string& path);

// A folder with those above it, as far as they were not there. Move-only, not thread-safe.
class OutputFolder {
 public:
  // Makes what is missing of `path`. `unfinished` outlives this object. On error nothing has been
  // made.
  static absl::StatusOr<OutputFolder> Create(const std::string& path, UnfinishedFiles* unfinished);

  OutputFolder(OutputFolder&&) = default;
  OutputFolder& operator=(OutputFolder&&) = delete;
  // Removes the folders that it made, if they are empty, unless they are to stay.
  ~OutputFolder();

  // What was made is to stay.
  void Keep();

 private:
  explicit OutputFolder(UnfinishedFiles* unfinished) : unfinished_(unfinished) {}

  UnfinishedFiles* unfinished_;
  std::vector<std::string> made_;  // from the top
};

}  // namespace swiglu::files
