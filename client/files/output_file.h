// SPDX-License-Identifier: Apache-2.0
//
// A file that appears whole or not at all. Until it is complete, the file has no name, or a
// temporary name in its folder if the file system does not support files without names.
#pragma once

#include <sys/stat.h>

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "client/files/unfinished_files.h"

namespace swiglu::files {

// What to do if a file with the wanted name exists already.
enum class IfExists { kFail, kOverwrite };

// OK if `path` is free or may be overwritten. ALREADY_EXISTS if a file exists there and may not be
// overwritten. Other errors if the folder may not be written, or if something other than a regular
// file is there. With this, a program knows before any work what Create and Commit will decide. If
// `path` may be overwritten and is a symbolic link, the answer is about the file that the link
// points to.
absl::Status CheckMayWrite(const std::string& path, IfExists if_exists);

// One file that is being written. Not thread-safe. If it is destroyed before Commit, it leaves
// nothing behind. The same holds if a signal ends the process, as long as the thread that takes the
// signal calls UnfinishedFiles::RemoveAll. Messages begin with the path.
//
// If the new file replaces an old one, it gets the old file's mode. It also gets the owner and the
// group of the old file, as far as the system permits. If the group cannot be kept, the new file's
// group gets only the rights that every user has. If the name is a symbolic link, the link stays,
// and the file that it points to is replaced. Other hard links still lead to the old file.
class OutputFile {
 public:
  using Created = absl::StatusOr<std::unique_ptr<OutputFile>>;

  // Begins a file in the folder of `path`. Fails if the folder is missing or may not be written.
  // With kOverwrite, also fails if something other than a regular file exists at `path`.
  // `unfinished` must outlive the new object.
  static Created Create(const std::string& path, IfExists if_exists, UnfinishedFiles* unfinished);

  // The same under a temporary name. Create does this if the file system cannot make a file without
  // a name.
  static Created CreateNamed(const std::string& path, IfExists if_exists,
                             UnfinishedFiles* unfinished);

  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;
  ~OutputFile();

  const std::string& path() const { return path_; }

  // Appends `bytes` to the file. After an error the file must not be used any more.
  absl::Status Write(absl::Span<const std::byte> bytes);

  // Makes the bytes written so far durable.
  absl::Status Sync();

  // Gives the file its name. ALREADY_EXISTS if another file has the name and may not be
  // overwritten; that file is unchanged. Call Commit once, after Sync.
  absl::Status Commit();

 private:
  OutputFile(std::string path, std::string target, IfExists if_exists, UnfinishedFiles* unfinished)
      : path_(std::move(path)),
        target_(std::move(target)),
        if_exists_(if_exists),
        unfinished_(unfinished) {}

  // Resolves links and looks at what is there.
  static Created Prepare(const std::string& path, IfExists if_exists, UnfinishedFiles* unfinished);
  bool OpenWithoutName();
  static Created OpenNamed(std::unique_ptr<OutputFile> file);
  void SetMode() const;
  int GiveName();
  int LinkTo(const std::string& name) const;

  const std::string path_;    // as messages show it
  const std::string target_;  // where the file goes: `path_`, or the target of the link `path_`
  std::string temporary_;     // the file's name until Commit; empty: none
  int fd_ = -1;
  const IfExists if_exists_;
  UnfinishedFiles* const unfinished_;
  std::optional<struct stat> replaced_;  // the file that is replaced, if there is one
};

}  // namespace swiglu::files
