// SPDX-License-Identifier: Apache-2.0
//
// open, fcntl, isatty, write and poll.
#include "client/files/standard_streams.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>

namespace swiglu::files {
namespace {

// Whether `fd` was open when the process began, and not for `useless_mode` alone. A descriptor that
// a library opened before `main` is closed on exec; one that came through an exec is not.
bool IsOpen(int fd, int useless_mode) {
  const int descriptor_flags = fcntl(fd, F_GETFD);
  if (descriptor_flags < 0 || (descriptor_flags & FD_CLOEXEC) != 0) return false;
  return (fcntl(fd, F_GETFL) & O_ACCMODE) != useless_mode;
}

}  // namespace

void HoldStandardStreams() {
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (fcntl(fd, F_GETFD) >= 0) continue;
    // The lowest free number is `fd`. The mode is the one that the stream has no use for.
    if (open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) != fd) return;
  }
}

absl::Status CheckMayReadStandardInput() {
  if (!IsOpen(STDIN_FILENO, O_WRONLY)) {
    return absl::FailedPreconditionError("stdin: closed, or not open for reading");
  }
  if (isatty(STDIN_FILENO) == 0) return absl::OkStatus();
  return absl::FailedPreconditionError(
      "stdin: tensors do not come from a terminal; send them from a file or through a pipe");
}

absl::Status CheckMayWriteStandardOutput() {
  if (!IsOpen(STDOUT_FILENO, O_RDONLY)) {
    return absl::FailedPreconditionError("stdout: closed, or not open for writing");
  }
  if (isatty(STDOUT_FILENO) == 0) return absl::OkStatus();
  return absl::FailedPreconditionError(
      "stdout: tensors do not go to a terminal; send them to a file or a pipe");
}

absl::Status WriteStandardOutput(absl::Span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = write(STDOUT_FILENO, bytes.data(), bytes.size());
    if (written >= 0) {
      bytes.remove_prefix(static_cast<size_t>(written));
    } else if (errno == EAGAIN) {
      pollfd awaited = {.fd = STDOUT_FILENO, .events = POLLOUT, .revents = 0};
      poll(&awaited, 1, -1);
    } else if (errno != EINTR) {
      return absl::ErrnoToStatus(errno, "stdout: cannot write");
    }
  }
  return absl::OkStatus();
}

}  // namespace swiglu::files
