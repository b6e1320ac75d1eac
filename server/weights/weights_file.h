// SPDX-License-Identifier: Apache-2.0
//
// A file with weights: opened once, then read piece by piece. It is not mapped into memory, because
// touching a mapped file that another process cuts short ends this process with SIGBUS.
#pragma once

#include <sys/stat.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/base/descriptor.h"

namespace swiglu::server {

// A regular file. Holds one file descriptor while it lives. Thread-safe: several threads may read
// at the same time. Each error is a sentence that begins with the path.
class WeightsFile {
 public:
  // Opens `path`. Follows symbolic links, and does not wait, even if `path` is a named pipe.
  // NOT_FOUND, PERMISSION_DENIED, FAILED_PRECONDITION if it is not a regular file, and for the rest
  // the code that absl::ErrnoToStatus gives.
  static absl::StatusOr<std::unique_ptr<WeightsFile>> Open(const std::string& path);

  WeightsFile(const WeightsFile&) = delete;
  WeightsFile& operator=(const WeightsFile&) = delete;

  const std::string& path() const { return path_; }
  // The size when the file was opened.
  uint64_t size_bytes() const { return static_cast<uint64_t>(opened_.st_size); }

  // Reads the bytes of the file from `offset` on until `to` is full. Blocks. On error the content
  // of `to` is unspecified. DATA_LOSS if the file has become too short. Otherwise the code of the
  // system's error.
  absl::Status Read(uint64_t offset, std::span<std::byte> to) const;

  // OK if neither the size nor the time of the last change differ from those when the file was
  // opened. Then all bytes read so far are from one version of the file. DATA_LOSS otherwise.
  absl::Status CheckUnchanged() const;

 private:
  WeightsFile(std::string path, Descriptor descriptor, const struct stat& opened)
      : path_(std::move(path)), descriptor_(std::move(descriptor)), opened_(opened) {}

  absl::Status CutShort(int64_t size_bytes) const;

  const std::string path_;
  const Descriptor descriptor_;
  const struct stat opened_;  // the state when the file was opened
};

}  // namespace swiglu::server
