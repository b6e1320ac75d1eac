// SPDX-License-Identifier: Apache-2.0
//
// open, fstat, mmap. See the header.
#include "server/device/shared_file.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "server/device/hole_guard.h"

namespace swiglu::server {
namespace {

constexpr char kFolder[] = "/dev/shm/";
constexpr size_t kMaxKeyBytes = 255;

bool IsAllowed(absl::string_view name, absl::string_view prefix) {
  return !name.empty() && name.size() <= kMaxKeyBytes &&
         name.find_first_of(absl::string_view("/\0", 2)) == absl::string_view::npos &&
         !absl::StrContains(name, "..") && absl::StartsWith(name, prefix);
}

// The regular file of that name for reading and writing, or none, with errno set. Nothing else is
// opened, as the opening of a device or a pipe may have effects.
Descriptor OpenRegularFile(const std::string& name) {
  const std::string path = absl::StrCat(kFolder, name);
  const Descriptor found(::open(path.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
  struct stat info = {};
  if (found.get() < 0) return {};
  errno = EINVAL;
  if (::fstat(found.get(), &info) != 0 || !S_ISREG(info.st_mode)) return {};
  // Does not wait for a client that holds a lease on the file.
  return Descriptor(
      ::open(absl::StrCat("/proc/self/fd/", found.get()).c_str(), O_RDWR | O_CLOEXEC | O_NONBLOCK));
}

// Of a mapping of the file.
size_t PageBytes(int fd) {
  struct statfs system = {};
  if (::fstatfs(fd, &system) == 0 && system.f_type == HUGETLBFS_MAGIC) {
    return static_cast<size_t>(system.f_bsize);
  }
  return static_cast<size_t>(::sysconf(_SC_PAGESIZE));
}

// A system region on the CPU.
class HostRegion final : public RegionMemory {
 public:
  explicit HostRegion(SharedFile file)
      : RegionMemory(file.data(), kCpuDevice),
        file_(std::move(file)),
        guard_(file_.data(), file_.mapped_bytes(), file_.page_bytes()) {}

  bool IsShrunk() const override { return file_.IsShrunk(); }
  bool HasHole() const override { return guard_.met_hole(); }

 private:
  const SharedFile file_;
  const HoleGuard guard_;
};

}  // namespace

std::variant<SharedFile, RegionRefusal> SharedFile::Open(const SystemRegionSource& source,
                                                         uint64_t size_bytes,
                                                         absl::string_view prefix) {
  const absl::string_view name = absl::StripPrefix(source.key, "/");
  if (!IsAllowed(name, prefix)) return RegionRefusal{RegionFault::kKey};
  Descriptor file = OpenRegularFile(std::string(name));
  if (file.get() < 0) {
    const bool is_short_of_files = errno == EMFILE || errno == ENFILE;
    return RegionRefusal{is_short_of_files ? RegionFault::kNoMemory : RegionFault::kKey};
  }
  return Map(std::move(file), source.offset, size_bytes);
}

std::variant<SharedFile, RegionRefusal> SharedFile::Map(Descriptor file, uint64_t offset,
                                                        uint64_t size_bytes) {
  struct stat info = {};
  if (::fstat(file.get(), &info) != 0) return RegionRefusal{RegionFault::kKey};
  const size_t page_bytes = PageBytes(file.get());
  if (offset % page_bytes != 0) {
    return RegionRefusal{RegionFault::kOffset, 0, static_cast<int64_t>(page_bytes)};
  }
  const auto file_bytes = static_cast<uint64_t>(info.st_size);
  const uint64_t left_bytes = file_bytes - std::min(offset, file_bytes);
  if (size_bytes > left_bytes) {
    return RegionRefusal{RegionFault::kSize, static_cast<int64_t>(left_bytes)};
  }
  const size_t mapped_bytes = (size_bytes + page_bytes - 1) / page_bytes * page_bytes;
  void* const data = ::mmap(nullptr, mapped_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file.get(),
                            static_cast<off_t>(offset));
  if (data == MAP_FAILED) {
    const bool is_closed = errno == EACCES || errno == EPERM;
    return RegionRefusal{is_closed ? RegionFault::kKey : RegionFault::kNoMemory};
  }
  return SharedFile(std::move(file), static_cast<std::byte*>(data), mapped_bytes, page_bytes,
                    offset + size_bytes);
}

SharedFile::SharedFile(SharedFile&& other) noexcept
    : file_(std::move(other.file_)),
      data_(std::exchange(other.data_, nullptr)),
      mapped_bytes_(other.mapped_bytes_),
      page_bytes_(other.page_bytes_),
      end_offset_(other.end_offset_) {}

SharedFile::~SharedFile() {
  if (data_ != nullptr) ::munmap(data_, mapped_bytes_);
}

bool SharedFile::IsShrunk() const {
  struct stat info = {};
  return ::fstat(file_.get(), &info) != 0 || static_cast<uint64_t>(info.st_size) < end_offset_;
}

OpenedRegion HostRegionOpener::Open(const RegionSpec& spec) {
  const auto* const source = std::get_if<SystemRegionSource>(&spec.source);
  if (source == nullptr) return RegionRefusal{RegionFault::kDisabled};
  auto opened = SharedFile::Open(*source, spec.size_bytes, prefix_);
  if (const auto* refusal = std::get_if<RegionRefusal>(&opened)) return *refusal;
  return std::make_unique<HostRegion>(std::get<SharedFile>(std::move(opened)));
}

}  // namespace swiglu::server
