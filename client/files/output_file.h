// SPDX-License-Identifier: Apache-2.0
//
// A file that appears whole or not at all: written without a name where the file system can do
// that, else under a temporary one in its folder, and given its name at the end.
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

// OK if `path` is free or may be overwritten, ALREADY_EXISTS otherwise: an early word on what
// Commit decides. Where it may be overwritten and is a symbolic link, that which the link names
// counts.
absl::Status CheckMayWrite(const std::string& path, IfExists if_exists);

// One file on its way. Move-only, not thread-safe. If it is destroyed before Commit, it leaves
// nothing behind. The same holds if a signal ends the process, as long as the thread that takes the
// signal calls UnfinishedFiles::RemoveAll. Messages begin with the path.
//
// A file that is replaced gives the new one its mode and, as far as the system lets this user, its
// owner and group; where the group cannot be kept it gets the rights of others. A symbolic link
// stays and the file that it names is replaced. Other hard links keep the old file.
class OutputFile {
 public:
  // Begins a file in the folder of `path`. Fails if the folder is missing or may not be written,
  // and for what is no regular file. `unfinished` outlives this object.
  static absl::StatusOr<OutputFile> Create(const std::string& path, IfExists if_exists,
                                           UnfinishedFiles* unfinished);

  // The same under a temporary name: what Create does where the file system makes no file without
  // one.
  static absl::StatusOr<OutputFile> CreateNamed(const std::string& path, IfExists if_exists,
                                                UnfinishedFiles* unfinished);

  OutputFile(OutputFile&& other) noexcept;
  OutputFile& operator=(OutputFile&&) = delete;
  ~OutputFile();

  const std::string& path() const { return path_; }

  // Appends. On error the file is of no more use.
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
