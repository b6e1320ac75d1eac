// SPDX-License-Identifier: Apache-2.0
//
// open, fstat, mmap, and a handler of SIGBUS. All that the handler needs is made beforehand: it may
// neither allocate nor lock.
#include "client/files/mapped_file.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>

#include "absl/strings/str_cat.h"

namespace swiglu::files {
namespace {

// The one that lives.
std::atomic<const TruncationWatch*> watch{nullptr};

}  // namespace

absl::StatusOr<std::unique_ptr<MappedFile>> MappedFile::Open(const std::string& path) {
  // Without O_NONBLOCK a named pipe would wait for a writer.
  std::unique_ptr<MappedFile> file(
      new MappedFile(path, open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)));
  if (file->fd_ < 0) return absl::ErrnoToStatus(errno, absl::StrCat(path, ": cannot open"));
  struct stat info;
  if (fstat(file->fd_, &info) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat(path, ": cannot read its size"));
  }
  if (!S_ISREG(info.st_mode)) {
    return absl::FailedPreconditionError(absl::StrCat(path, ": not a regular file"));
  }
  if (info.st_size == 0) return file;
  const auto size_bytes = static_cast<size_t>(info.st_size);
  void* const data = mmap(nullptr, size_bytes, PROT_READ, MAP_PRIVATE, file->fd_, 0);
  if (data == MAP_FAILED) {
    return absl::ErrnoToStatus(errno, absl::StrCat(path, ": cannot map"));
  }
  file->data_ = static_cast<const std::byte*>(data);
  file->size_bytes_ = size_bytes;
  return file;
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

TruncationWatch::TruncationWatch(absl::string_view program, int exit_code,
                                 absl::Span<const MappedFile* const> files)
    : exit_code_(exit_code) {
  for (const MappedFile* file : files) {
    ranges_.push_back({file->bytes(), absl::StrCat(program, ": ", file->path(),
                                                   ": was cut short while it was read\n")});
  }
  watch.store(this);
  struct sigaction action = {};
  action.sa_flags = SA_SIGINFO;
  action.sa_sigaction = [](int signal, siginfo_t* info, void*) { OnSigbus(signal, info->si_addr); };
  sigaction(SIGBUS, &action, nullptr);
}

TruncationWatch::~TruncationWatch() {
  signal(SIGBUS, SIG_DFL);
  watch.store(nullptr);
}

void TruncationWatch::OnSigbus(int signal_number, void* address) {
  const TruncationWatch* const self = watch.load();
  const auto* const touched = static_cast<const std::byte*>(address);
  for (size_t k = 0; self != nullptr && k < self->ranges_.size(); ++k) {
    const Range& range = self->ranges_[k];
    if (touched < range.bytes.data() || touched >= range.bytes.data() + range.bytes.size())
      continue;
    // Nothing can be done if stderr takes no line.
    if (write(STDERR_FILENO, range.line.data(), range.line.size()) < 0) _exit(self->exit_code_);
    _exit(self->exit_code_);
  }
  // The access that failed is made again when this returns, and fails for good.
  signal(signal_number, SIG_DFL);
}

}  // namespace swiglu::files
