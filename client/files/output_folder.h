// SPDX-License-Identifier: Apache-2.0
//
// A folder for results. It is made if it is not there, and removed again if there are no results.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/files/unfinished_files.h"

namespace swiglu::files {

// OK if `path` is a folder that may be written to, or can be made. This tells early what
// OutputFolder::Create and OutputFile::Create will decide. The error is one sentence that begins
// with the path.
absl::Status CheckMayMakeFolder(const std::string& path);

// A folder, and those folders above it that had to be made. Move-only, not thread-safe.
class OutputFolder {
 public:
  // Makes the missing folders of `path`. `unfinished` outlives this object. On error nothing has
  // been made.
  static absl::StatusOr<OutputFolder> Create(const std::string& path, UnfinishedFiles* unfinished);

  OutputFolder(OutputFolder&&) = default;
  OutputFolder& operator=(OutputFolder&&) = delete;
  // Removes the folders that it made, if they are empty and `Keep` was not called.
  ~OutputFolder();

  // Keeps the folders that it made.
  void Keep();

 private:
  explicit OutputFolder(UnfinishedFiles* unfinished) : unfinished_(unfinished) {}

  UnfinishedFiles* unfinished_;
  std::vector<std::string> made_;  // from the top
};

}  // namespace swiglu::files
