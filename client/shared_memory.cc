// SPDX-License-Identifier: Apache-2.0
//
// A file of /dev/shm that has a name only until the server has opened it.
#include "swiglu/shared_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace swiglu::client {
namespace {

constexpr size_t kMaxPrefixBytes = 200;
constexpr absl::Duration kUnregisterTimeout = absl::Seconds(2);

// Every failed step of making the file and mapping it, with the system's word for it. ENOSPC,
// ENOMEM and EMFILE are RESOURCE_EXHAUSTED.
absl::Status Failed(absl::string_view step, int64_t size_bytes, int error) {
  const std::string text = absl::StrCat("cannot ", step, " ", size_bytes,
                                        " bytes of shared memory: ", std::strerror(error));
  return absl::Status(absl::ErrnoToStatusCode(error), text);
}

// A file of /dev/shm. Removes its name and closes it.
class SharedFile {
 public:
  explicit SharedFile(std::string key) : key_(std::move(key)) {}
  ~SharedFile() {
    if (fd_ < 0) return;
    shm_unlink(key_.c_str());
    close(fd_);
  }
  SharedFile(const SharedFile&) = delete;
  SharedFile& operator=(const SharedFile&) = delete;

  // Makes the file, with all of its pages: a write to a page that is not there would be a SIGBUS.
  absl::Status Make(int64_t size_bytes, unsigned mode) {
    fd_ = shm_open(key_.c_str(), O_RDWR | O_CREAT | O_EXCL, mode);
    if (fd_ < 0) return Failed("make a file for", size_bytes, errno);
    // The umask may have taken some of it away.
    if (fchmod(fd_, mode) != 0) return Failed("set the mode of", size_bytes, errno);
    int error = EINTR;
    while (error == EINTR) error = posix_fallocate(fd_, 0, size_bytes);
    return error == 0 ? absl::OkStatus() : Failed("reserve", size_bytes, error);
  }

  // Maps all of it, or returns MAP_FAILED.
  void* Map(int64_t size_bytes) const {
    return mmap(nullptr, static_cast<size_t>(size_bytes), PROT_READ | PROT_WRITE, MAP_SHARED, fd_,
                0);
  }

 private:
  const std::string key_;
  int fd_ = -1;
};

// After such an error the server may have registered the region all the same.
bool MayBeRegistered(const absl::Status& status) {
  return absl::IsDeadlineExceeded(status) || absl::IsUnavailable(status) ||
         absl::IsCancelled(status) || absl::IsInternal(status) || absl::IsUnknown(status);
}

absl::Status Check(int64_t size_bytes, const SystemRegionOptions& options) {
  if (size_bytes < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("a region has 1 byte or more, not ", size_bytes));
  }
  if (options.file_prefix.size() > kMaxPrefixBytes || absl::StrContains(options.file_prefix, '/')) {
    return absl::InvalidArgumentError(
        absl::StrCat("option file_prefix has no '/' and at most ", kMaxPrefixBytes, " bytes"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<SystemRegion> SystemRegion::Create(const Client& client, int64_t size_bytes,
                                                  const SystemRegionOptions& options) {
  absl::Status status = Check(size_bytes, options);
  if (!status.ok()) return status;
  char secret[16];
  if (getrandom(secret, sizeof(secret), 0) != sizeof(secret)) {
    return Failed("name", size_bytes, errno);
  }
  const std::string file_name = absl::StrCat(
      options.file_prefix, absl::BytesToHexString(absl::string_view(secret, sizeof(secret))));
  const std::string key = absl::StrCat("/", file_name);

  SharedFile file(key);
  status = file.Make(size_bytes, options.mode);
  if (!status.ok()) return status;
  SystemRegion region;
  void* const memory = file.Map(size_bytes);
  if (memory == MAP_FAILED) return Failed("map", size_bytes, errno);
  region.bytes_ = {static_cast<std::byte*>(memory), static_cast<size_t>(size_bytes)};
  region.name_ = options.name.empty() ? file_name : options.name;
  status = client.RegisterSystemRegion(region.name_, key, size_bytes, {.timeout = options.timeout});
  // With a name that the caller chose, the region at the server may be somebody else's.
  if (status.ok() || (MayBeRegistered(status) && options.name.empty())) region.client_ = client;
  if (!status.ok()) return status;
  return region;
}

SystemRegion::~SystemRegion() {
  if (client_) {
    client_->UnregisterRegion(RegionKind::kSystem, name_, {.timeout = kUnregisterTimeout})
        .IgnoreError();
  }
  if (!bytes_.empty()) munmap(bytes_.data(), bytes_.size());
}

}  // namespace swiglu::client
