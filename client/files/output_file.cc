// SPDX-License-Identifier: Apache-2.0
//
// Uses O_TMPFILE, write, fsync and linkat, and rename if it replaces a file.
#include "client/files/output_file.h"

#include <fcntl.h>
#include <linux/limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace swiglu::files {
namespace {

// The kernel, too, follows at most this many links in a row.
constexpr int kMaxLinks = 40;

absl::Status Failed(absl::string_view path, absl::string_view what, int error) {
  return absl::ErrnoToStatus(error, absl::StrCat(path, ": cannot ", what));
}

absl::Status Exists(absl::string_view path) {
  return absl::AlreadyExistsError(absl::StrCat(path, ": exists already; --overwrite replaces it"));
}

// The folder of `path`, with its final slash; empty for the current folder.
std::string FolderOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "" : path.substr(0, slash + 1);
}

// `folder` as a system call needs it: `.` for the current folder.
const char* OrHere(const std::string& folder) { return folder.empty() ? "." : folder.c_str(); }

// The path that `path` leads to through symbolic links. No file need exist there.
absl::StatusOr<std::string> FollowLinks(const std::string& path) {
  std::string target = path;
  for (int k = 0; k < kMaxLinks; ++k) {
    char link[PATH_MAX];
    const ssize_t size = readlink(target.c_str(), link, sizeof(link));
    if (size < 0) return target;  // no link: a file, or nothing
    if (size == sizeof(link)) return Failed(path, "follow its link", ENAMETOOLONG);
    const std::string next(link, static_cast<size_t>(size));
    target = next.front() == '/' ? next : FolderOf(target) + next;
  }
  return Failed(path, "follow its link", ELOOP);
}

absl::StatusOr<std::string> TargetOf(const std::string& path, IfExists if_exists) {
  if (if_exists == IfExists::kFail) return path;
  return FollowLinks(path);
}

// A random name in the folder of `target`.
std::string TemporaryName(const std::string& target) {
  std::random_device random;
  const uint64_t number = uint64_t{random()} << 32 | random();
  return absl::StrCat(FolderOf(target), ".swiglu-", absl::Hex(number, absl::kZeroPad16));
}

// The mode of a new file under the caller's umask. A file has 0600 first, and this mode later.
mode_t NewFileMode() {
  const mode_t mask = umask(0);
  umask(mask);
  return 0666 & ~mask;
}

// Renames without replacing. If the file system cannot do so in one step, checks `to` first.
int RenameToFreeName(const std::string& from, const std::string& to) {
  if (renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE) == 0) return 0;
  if (errno != EINVAL && errno != ENOSYS) return errno;
  if (access(to.c_str(), F_OK) == 0) return EEXIST;
  return rename(from.c_str(), to.c_str()) == 0 ? 0 : errno;
}

// Makes a new name in `folder` durable. Ignores errors, because the file exists in any case.
void SyncFolder(const std::string& folder) {
  const int fd = open(OrHere(folder), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;
  fsync(fd);
  close(fd);
}

}  // namespace

absl::Status CheckMayWrite(const std::string& path, IfExists if_exists) {
  const absl::StatusOr<std::string> target = TargetOf(path, if_exists);
  if (!target.ok()) return target.status();
  const std::string folder = FolderOf(*target);
  if (access(OrHere(folder), W_OK | X_OK) != 0) return Failed(path, "write to its folder", errno);
  struct stat info;
  if (lstat(target->c_str(), &info) != 0) return absl::OkStatus();
  if (S_ISDIR(info.st_mode)) {
    return absl::FailedPreconditionError(absl::StrCat(path, ": is a folder"));
  }
  if (if_exists == IfExists::kFail) return Exists(path);
  if (!S_ISREG(info.st_mode)) {
    return absl::FailedPreconditionError(absl::StrCat(path, ": not a regular file"));
  }
  return absl::OkStatus();
}

OutputFile::Created OutputFile::Prepare(const std::string& path, IfExists if_exists,
                                        UnfinishedFiles* unfinished) {
  absl::StatusOr<std::string> target = TargetOf(path, if_exists);
  if (!target.ok()) return target.status();
  std::unique_ptr<OutputFile> file(new OutputFile(path, *std::move(target), if_exists, unfinished));
  struct stat info;
  if (if_exists == IfExists::kFail || lstat(file->target_.c_str(), &info) != 0) return file;
  if (!S_ISREG(info.st_mode)) {
    return absl::FailedPreconditionError(absl::StrCat(path, ": not a regular file"));
  }
  file->replaced_ = info;
  return file;
}

OutputFile::Created OutputFile::Create(const std::string& path, IfExists if_exists,
                                       UnfinishedFiles* unfinished) {
  Created file = Prepare(path, if_exists, unfinished);
  if (!file.ok() || (*file)->OpenWithoutName()) return file;
  return OpenNamed(*std::move(file));
}

OutputFile::Created OutputFile::CreateNamed(const std::string& path, IfExists if_exists,
                                            UnfinishedFiles* unfinished) {
  Created file = Prepare(path, if_exists, unfinished);
  if (!file.ok()) return file;
  return OpenNamed(*std::move(file));
}

// False if the file system makes no file without a name, or if /proc cannot give it one later.
bool OutputFile::OpenWithoutName() {
  const std::string folder = FolderOf(target_);
  fd_ = open(OrHere(folder), O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600);
  if (fd_ < 0) return false;
  if (access(absl::StrCat("/proc/self/fd/", fd_).c_str(), F_OK) != 0) {
    close(std::exchange(fd_, -1));
    return false;
  }
  SetMode();
  return true;
}

OutputFile::Created OutputFile::OpenNamed(std::unique_ptr<OutputFile> file) {
  std::string name = TemporaryName(file->target_);
  const int error = file->unfinished_->Make(name, [&] {
    file->fd_ = open(name.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
    return file->fd_ >= 0 ? 0 : errno;
  });
  if (error != 0) return Failed(file->path_, "make a temporary file in its folder", error);
  file->temporary_ = std::move(name);
  file->SetMode();
  return file;
}

void OutputFile::SetMode() const {
  if (!replaced_) {
    fchmod(fd_, NewFileMode());
    return;
  }
  mode_t mode = replaced_->st_mode & 07777;
  // Giving the file away takes its bits for setuid and setgid, so the mode comes last.
  const bool keeps_owner = fchown(fd_, replaced_->st_uid, static_cast<gid_t>(-1)) == 0;
  const bool keeps_group = fchown(fd_, static_cast<uid_t>(-1), replaced_->st_gid) == 0;
  if (!keeps_owner) mode &= ~static_cast<mode_t>(S_ISUID);
  if (!keeps_group) {
    mode &= ~static_cast<mode_t>(S_ISGID | S_IRWXG);
    mode |= (mode & S_IRWXO) << 3;
  }
  fchmod(fd_, mode);
}

OutputFile::~OutputFile() {
  if (fd_ >= 0) close(fd_);
  if (temporary_.empty()) return;
  unlink(temporary_.c_str());
  unfinished_->Forget(temporary_);
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

absl::Status OutputFile::Sync() {
  return fsync(fd_) == 0 ? absl::OkStatus() : Failed(path_, "write", errno);
}

absl::Status OutputFile::Commit() {
  const int error = GiveName();
  if (error == EEXIST && if_exists_ == IfExists::kFail) return Exists(path_);
  if (error != 0) return Failed(path_, "give the file its name", error);
  if (!temporary_.empty()) unfinished_->Forget(std::exchange(temporary_, std::string()));
  SyncFolder(FolderOf(target_));
  return absl::OkStatus();
}

// Returns 0 or an errno value.
int OutputFile::GiveName() {
  if (temporary_.empty()) {
    const int error = LinkTo(target_);
    if (error != EEXIST || if_exists_ == IfExists::kFail) return error;
    // linkat cannot replace a file, and rename needs a file with a name.
    std::string name = TemporaryName(target_);
    const int link_error = unfinished_->Make(name, [&] { return LinkTo(name); });
    if (link_error != 0) return link_error;
    temporary_ = std::move(name);
  }
  if (if_exists_ == IfExists::kFail) return RenameToFreeName(temporary_, target_);
  return rename(temporary_.c_str(), target_.c_str()) == 0 ? 0 : errno;
}

// Links the open file to `name`. Returns 0 or an errno value.
int OutputFile::LinkTo(const std::string& name) const {
  const std::string open_file = absl::StrCat("/proc/self/fd/", fd_);
  return linkat(AT_FDCWD, open_file.c_str(), AT_FDCWD, name.c_str(), AT_SYMLINK_FOLLOW) == 0
             ? 0
             : errno;
}

}  // namespace swiglu::files
