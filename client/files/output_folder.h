// SPDX-License-Identifier: Apache-2.0
//
// A folder for results. It is made if it is missing, and removed again if no results are kept.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/files/unfinished_files.h"

namespace swiglu::files {

// OK if `path` is a folder that may be written to, or a folder that can be made. With this, a
// program knows before any work what OutputFolder::Create and OutputFile::Create will decide. The
// error message is one sentence that begins with the path.
absl::Status CheckMayMakeFolder(const std::string& path);

// A folder, with those of its parent folders that had to be made. Move-only, not thread-safe.
class OutputFolder {
 public:
  // Makes `path` and its parents, where they are missing. `unfinished` must outlive this object. On
  // error none of the new folders remains.
  static absl::StatusOr<OutputFolder> Create(const std::string& path, UnfinishedFiles* unfinished);

  OutputFolder(OutputFolder&&) = default;
  OutputFolder& operator=(OutputFolder&&) = delete;
  // Unless `Keep` was called, removes those folders that this object made and that are empty.
  ~OutputFolder();

  // Makes the destructor keep the folders that this object made.
  void Keep();

 private:
  explicit OutputFolder(UnfinishedFiles* unfinished) : unfinished_(unfinished) {}

  UnfinishedFiles* unfinished_;
  std::vector<std::string> made_;  // the outermost first
};

}  // namespace swiglu::files
