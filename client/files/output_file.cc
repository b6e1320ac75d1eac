// SPDX-License-Identifier: Apache-2.0
//
// mkostemp, write, fsync, rename.
#include "client/files/output_file.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace swiglu::files {
namespace {

absl::Status Failed(absl::string_view path, absl::string_view what, int error) {
  return absl::ErrnoToStatus(error, absl::StrCat(path, ": cannot ", what));
}

absl::Status Exists(absl::string_view path) {
  return absl::AlreadyExistsError(absl::StrCat(path, ": exists already; --overwrite replaces it"));
}

// The folder of `path`, with its slash; empty for the current one.
std::string FolderOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "" : path.substr(0, slash + 1);
}

// The mode of a new file as the caller's umask has it; mkostemp gives 0600.
mode_t NewFileMode() {
  const mode_t mask = umask(0);
  umask(mask);
  return 0666 & ~mask;
}

// Renames without replacing. File systems that cannot do so in one step get a check first.
int RenameToFreeName(const std::string& from, const std::string& to) {
  if (renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE) == 0) return 0;
  if (errno != EINVAL && errno != ENOSYS) return errno;
  if (access(to.c_str(), F_OK) == 0) return EEXIST;
  return rename(from.c_str(), to.c_str()) == 0 ? 0 : errno;
}

// Makes a rename in `folder` durable; where that cannot be done, the file is there all the same.
void SyncFolder(const std::string& folder) {
  const int fd = open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;
  fsync(fd);
  close(fd);
}

}  // namespace

absl::Status CheckMayWrite(const std::string& path, IfExists if_exists) {
  const std::string folder = FolderOf(path);
  if (access(folder.empty() ? "." : folder.c_str(), W_OK | X_OK) != 0) {
    return Failed(path, "write to its folder", errno);
  }
  struct stat info;
  if (lstat(path.c_str(), &info) != 0) return absl::OkStatus();
  if (S_ISDIR(info.st_mode)) {
    return absl::FailedPreconditionError(absl::StrCat(path, ": is a folder"));
  }
  return if_exists == IfExists::kOverwrite ? absl::OkStatus() : Exists(path);
}

absl::StatusOr<OutputFile> OutputFile::Create(const std::string& path, IfExists if_exists) {
  std::string temporary = absl::StrCat(FolderOf(path), ".swiglu-XXXXXX");
  const int fd = mkostemp(temporary.data(), O_CLOEXEC);
  if (fd < 0) return Failed(path, "make a temporary file in its folder", errno);
  fchmod(fd, NewFileMode());
  return OutputFile(path, std::move(temporary), fd, if_exists);
}

OutputFile::OutputFile(std::string path, std::string temporary, int fd, IfExists if_exists)
    : path_(std::move(path)), temporary_(std::move(temporary)), fd_(fd), if_exists_(if_exists) {}

OutputFile::OutputFile(OutputFile&& other) noexcept
    : path_(std::move(other.path_)),
      temporary_(std::exchange(other.temporary_, std::string())),
      fd_(std::exchange(other.fd_, -1)),
      if_exists_(other.if_exists_) {}

OutputFile::~OutputFile() {
  if (fd_ >= 0) close(fd_);
  if (!temporary_.empty()) unlink(temporary_.c_str());
}

absl::Status OutputFile::Write(absl::Span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = write(fd_, bytes.data(), bytes.size());
    if (written >= 0) {
      bytes.remove_prefix(static_cast<size_t>(written));
    } else if (errno != EINTR) {
      return Failed(path_, "write", errno);
    }
  }
  return absl::OkStatus();
}

absl::Status OutputFile::Commit() {
  if (fsync(fd_) != 0) return Failed(path_, "write", errno);
  if (close(std::exchange(fd_, -1)) != 0) return Failed(path_, "write", errno);
  int error = 0;
  if (if_exists_ == IfExists::kFail) {
    error = RenameToFreeName(temporary_, path_);
  } else if (rename(temporary_.c_str(), path_.c_str()) != 0) {
    error = errno;
  }
  if (error == EEXIST && if_exists_ == IfExists::kFail) return Exists(path_);
  if (error != 0) return Failed(path_, "give the file its name", error);
  temporary_.clear();
  SyncFolder(FolderOf(path_));
  return absl::OkStatus();
}

}  // namespace swiglu::files
