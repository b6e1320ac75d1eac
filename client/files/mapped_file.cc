// SPDX-License-Identifier: Apache-2.0
//
// open, fstat, mmap.
#include "client/files/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"

namespace swiglu::files {

absl::StatusOr<MappedFile> MappedFile::Open(const std::string& path) {
  // Without O_NONBLOCK a named pipe would wait for a writer.
  MappedFile file(path, open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (file.fd_ < 0) return absl::ErrnoToStatus(errno, absl::StrCat(path, ": cannot open"));
  struct stat info;
  if (fstat(file.fd_, &info) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat(path, ": cannot read its size"));
  }
  if (!S_ISREG(info.st_mode)) {
    return absl::FailedPreconditionError(absl::StrCat(path, ": not a regular file"));
  }
  if (info.st_size == 0) return file;
  const auto size_bytes = static_cast<size_t>(info.st_size);
  void* const data = mmap(nullptr, size_bytes, PROT_READ, MAP_PRIVATE, file.fd_, 0);
  if (data == MAP_FAILED) {
    return absl::ErrnoToStatus(errno, absl::StrCat(path, ": cannot map"));
  }
  file.data_ = static_cast<const std::byte*>(data);
  file.size_bytes_ = size_bytes;
  return file;
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)),
      fd_(std::exchange(other.fd_, -1)),
      data_(std::exchange(other.data_, nullptr)),
      size_bytes_(std::exchange(other.size_bytes_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(fd_, other.fd_);
  std::swap(data_, other.data_);
  std::swap(size_bytes_, other.size_bytes_);
  return *this;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) munmap(const_cast<std::byte*>(data_), size_bytes_);
  if (fd_ >= 0) close(fd_);
}

absl::Status MappedFile::CheckWhole() const {
  struct stat info;
  if (fstat(fd_, &info) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat(path_, ": cannot read its size"));
  }
  if (static_cast<size_t>(info.st_size) >= size_bytes_) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat(path_, ": was cut short while it was read: it had ",
                                          size_bytes_, " bytes and has ", info.st_size));
}

}  // namespace swiglu::files
