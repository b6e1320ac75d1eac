// SPDX-License-Identifier: Apache-2.0
//
// A file that appears whole or not at all. It is written without a name if the file system can do
// that, else under a temporary name in its folder. It gets its name at the end.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "client/files/unfinished_files.h"

namespace swiglu::files {

// Whether a file may take the place of another.
enum class IfExists { kFail, kOverwrite };

// OK if `path` is free or may be overwritten, ALREADY_EXISTS otherwise. This tells early what
// Commit will decide. If `path` may be overwritten and is a symbolic link, the answer is about the
// file that the link names.
absl::Status CheckMayWrite(const std::string& path, IfExists if_exists);

// One file that is being written. Move-only, not thread-safe. If it is destroyed before Commit, it
// leaves nothing behind. The same holds if a signal ends the process, as long as the thread that
// takes the signal calls UnfinishedFiles::RemoveAll. Messages begin with the path.
//
// A new file that replaces an old one gets the old one's mode. It also gets the owner and the
// group, as far as the system permits this user to set them. If the group cannot be kept, the
// file's group gets only the rights that others have. A symbolic link stays, and the file that it
// names is replaced. Other hard links keep the old file.
class OutputFile {
 public:
  // Begins a file in the folder of `path`. Fails if the folder is missing or may not be written, or
  // if `path` is something else than a regular file. `unfinished` outlives this object.
  static absl::StatusOr<OutputFile> Create(const std::string& path, IfExists if_exists,
                                           UnfinishedFiles* unfinished);

  // The same under a temporary name. Create does this if the file system cannot make a file without
  // a name.
  static absl::StatusOr<OutputFile> CreateNamed(const std::string& path, IfExists if_exists,
                                                UnfinishedFiles* unfinished);

  OutputFile(OutputFile&& other) noexcept;
  OutputFile& operator=(OutputFile&&) = delete;
  ~OutputFile();

  const std::string& path() const { return path_; }

  // Appends. After an error the file must not be used any more.
  absl::Status Write(absl::Span<const std::byte> bytes);

  // Makes what was written durable.
  absl::Status Sync();

  // Gives the file its name. ALREADY_EXISTS, and nothing changed, if another file has it and may
  // not be overwritten. Call once, after Sync.
  absl::Status Commit();

 private:
  OutputFile(std::string path, std::string target, IfExists if_exists, UnfinishedFiles* unfinished);

  // Resolves links and looks at what is there.
  static absl::StatusOr<OutputFile> Prepare(const std::string& path, IfExists if_exists,
                                            UnfinishedFiles* unfinished);
  bool OpenWithoutName();
  absl::Status OpenNamed();
  void SetMode() const;
  int GiveName();
  int LinkTo(const std::string& name) const;

  std::string path_;       // as messages show it
  std::string target_;     // where the file goes: `path_`, or what it is a link to
  std::string temporary_;  // the name that the file has until it has its own; empty: none
  int fd_ = -1;
  IfExists if_exists_;
  UnfinishedFiles* unfinished_;
  // Of the file that is replaced, if there is one.
  bool replaces_ = false;
  mode_t mode_ = 0;
  uid_t owner_ = 0;
  gid_t group_ = 0;
};

}  // namespace swiglu::files
