// SPDX-License-Identifier: Apache-2.0
//
// read, poll and mremap, which moves pages and copies nothing.
#include "client/files/stream_bytes.h"

#include <poll.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "absl/strings/str_cat.h"

namespace swiglu::files {
namespace {

constexpr uint64_t kFirstCapacityBytes = uint64_t{1} << 20;

// Reads once, and waits for bytes even if `fd` does not block. Returns what read returns.
ssize_t ReadSome(int fd, std::byte* to, size_t most_bytes) {
  while (true) {
    const ssize_t taken = read(fd, to, most_bytes);
    if (taken >= 0 || (errno != EINTR && errno != EAGAIN)) return taken;
    pollfd awaited = {.fd = fd, .events = POLLIN, .revents = 0};
    if (errno == EAGAIN) poll(&awaited, 1, -1);
  }
}

}  // namespace

void StreamBytes::Unmap::operator()(std::byte* bytes) const { munmap(bytes, capacity_bytes); }

absl::Status StreamBytes::Grow(size_t capacity_bytes) {
  constexpr int kProtection = PROT_READ | PROT_WRITE;
  void* const grown = bytes_ == nullptr ? mmap(nullptr, capacity_bytes, kProtection,
                                               MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
                                        : mremap(bytes_.get(), bytes_.get_deleter().capacity_bytes,
                                                 capacity_bytes, MREMAP_MAYMOVE);
  if (grown == MAP_FAILED) {
    return absl::ResourceExhaustedError(
        absl::StrCat("no memory for more than ", size_bytes_, " bytes"));
  }
  static_cast<void>(bytes_.release());  // these pages have moved
  bytes_ = {static_cast<std::byte*>(grown), Unmap{capacity_bytes}};
  return absl::OkStatus();
}

absl::Status StreamBytes::ReadUntil(int fd, uint64_t num_bytes) {
  while (size_bytes_ < num_bytes) {
    const uint64_t capacity_bytes = bytes_.get_deleter().capacity_bytes;
    if (size_bytes_ == capacity_bytes) {
      absl::Status status =
          Grow(std::min(std::max(2 * capacity_bytes, kFirstCapacityBytes), num_bytes));
      if (!status.ok()) return status;
      continue;
    }
    const ssize_t taken = ReadSome(fd, bytes_.get() + size_bytes_, capacity_bytes - size_bytes_);
    if (taken < 0) return absl::ErrnoToStatus(errno, "cannot read");
    if (taken == 0) break;
    size_bytes_ += static_cast<size_t>(taken);
  }
  return absl::OkStatus();
}

}  // namespace swiglu::files
