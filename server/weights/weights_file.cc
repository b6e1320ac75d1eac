// SPDX-License-Identifier: Apache-2.0
//
// open, fstat and pread. See the header.
#include "server/weights/weights_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "absl/strings/str_cat.h"

namespace swiglu::server {
namespace {

absl::Status SystemError(const std::string& path, const char* what) {
  const int error = errno;
  return absl::ErrnoToStatus(error, absl::StrCat(path, ": ", what));
}

}  // namespace

absl::StatusOr<std::unique_ptr<WeightsFile>> WeightsFile::Open(const std::string& path) {
  // Without O_NONBLOCK a named pipe would wait for a writer.
  Descriptor descriptor(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (descriptor.get() < 0) return SystemError(path, "cannot open");
  struct stat opened;
  if (::fstat(descriptor.get(), &opened) != 0) return SystemError(path, "cannot read its size");
  if (!S_ISREG(opened.st_mode)) {
    return absl::FailedPreconditionError(absl::StrCat(path, ": not a regular file"));
  }
  return std::unique_ptr<WeightsFile>(new WeightsFile(path, std::move(descriptor), opened));
}

absl::Status WeightsFile::Read(uint64_t offset, std::span<std::byte> to) const {
  while (!to.empty()) {
    const ssize_t num_read =
        ::pread(descriptor_.get(), to.data(), to.size(), static_cast<off_t>(offset));
    if (num_read < 0 && errno == EINTR) continue;
    if (num_read < 0) return SystemError(path_, "cannot read");
    if (num_read == 0) {
      struct stat now;
      if (::fstat(descriptor_.get(), &now) != 0) return SystemError(path_, "cannot read its size");
      return CutShort(now.st_size);
    }
    to = to.subspan(static_cast<size_t>(num_read));
    offset += static_cast<uint64_t>(num_read);
  }
  return absl::OkStatus();
}

absl::Status WeightsFile::CheckUnchanged() const {
  struct stat now;
  if (::fstat(descriptor_.get(), &now) != 0) return SystemError(path_, "cannot read its size");
  if (now.st_size < opened_.st_size) return CutShort(now.st_size);
  if (now.st_size == opened_.st_size && now.st_mtim.tv_sec == opened_.st_mtim.tv_sec &&
      now.st_mtim.tv_nsec == opened_.st_mtim.tv_nsec) {
    return absl::OkStatus();
  }
  return absl::DataLossError(absl::StrCat(path_, ": was changed while it was read"));
}

absl::Status WeightsFile::CutShort(int64_t size_bytes) const {
  return absl::DataLossError(absl::StrCat(path_, ": was cut short while it was read: it had ",
                                          opened_.st_size, " bytes and has ", size_bytes));
}

}  // namespace swiglu::server
