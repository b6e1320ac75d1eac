// SPDX-License-Identifier: Apache-2.0
//
// Files of clients as regions: which are opened, and what happens when they are cut short.
#include "server/device/shared_file.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <string>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "server/device/hole_guard.h"

namespace swiglu::server {
namespace {

const auto kPage = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));

// A file in /dev/shm, removed at the end.
class ShmFile {
 public:
  explicit ShmFile(uint64_t size_bytes, mode_t mode = 0600)
      : name_(absl::StrCat("swiglu_test_", ::getpid(), "_", next_++)),
        fd_(::open(path().c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, mode)) {
    EXPECT_GE(fd_.get(), 0);
    Resize(size_bytes);
  }
  ~ShmFile() { Unlink(); }

  void Unlink() const { ::unlink(path().c_str()); }

  void Resize(uint64_t size_bytes) const {
    ASSERT_EQ(::ftruncate(fd_.get(), static_cast<off_t>(size_bytes)), 0);
  }
  const std::string& name() const { return name_; }
  std::string path() const { return "/dev/shm/" + name_; }
  int fd() const { return fd_.get(); }

 private:
  static inline int next_ = 0;
  std::string name_;
  Descriptor fd_;
};

RegionSpec SpecOf(const std::string& key, uint64_t size_bytes, uint64_t offset = 0) {
  return {size_bytes, SystemRegionSource{key, offset}};
}

std::optional<RegionRefusal> Refusal(const std::string& key, uint64_t size_bytes,
                                     uint64_t offset = 0, const std::string& prefix = "") {
  const OpenedRegion opened = HostRegionOpener(prefix).Open(SpecOf(key, size_bytes, offset));
  if (const auto* refusal = std::get_if<RegionRefusal>(&opened)) return *refusal;
  return std::nullopt;
}

std::unique_ptr<RegionMemory> Open(const std::string& key, uint64_t size_bytes,
                                   uint64_t offset = 0) {
  OpenedRegion opened = HostRegionOpener("").Open(SpecOf(key, size_bytes, offset));
  EXPECT_TRUE(std::holds_alternative<std::unique_ptr<RegionMemory>>(opened));
  return std::move(std::get<std::unique_ptr<RegionMemory>>(opened));
}

void ExpectFault(const std::optional<RegionRefusal>& refusal, RegionFault fault) {
  ASSERT_TRUE(refusal.has_value());
  EXPECT_EQ(refusal->fault, fault);
}

TEST(SharedFileTest, SharesAPartOfAFile) {
  const ShmFile file(3 * kPage);
  const auto region = Open("/" + file.name(), kPage + 1, kPage);
  std::memset(region->data(), 7, kPage + 1);
  unsigned char byte = 0;
  ASSERT_EQ(::pread(file.fd(), &byte, 1, static_cast<off_t>(2 * kPage)), 1);
  EXPECT_EQ(byte, 7);
  ASSERT_EQ(::pread(file.fd(), &byte, 1, static_cast<off_t>(kPage - 1)), 1);
  EXPECT_EQ(byte, 0);
  EXPECT_EQ(region->device(), kCpuDevice);
  EXPECT_FALSE(region->IsShrunk());
}

TEST(SharedFileTest, OpensNothingButRegularFilesBelowTheFolder) {
  const ShmFile file(kPage);
  const std::string link = "/dev/shm/" + file.name() + "_link";
  const std::string pipe = "/dev/shm/" + file.name() + "_pipe";
  const std::string folder = "/dev/shm/" + file.name() + "_folder";
  ASSERT_EQ(::symlink(file.path().c_str(), link.c_str()), 0);
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  ASSERT_EQ(::mkdir(folder.c_str(), 0700), 0);
  const std::string keys[] = {"",
                              "/",
                              ".",
                              "..",
                              "no_such_file_for_swiglu",
                              "//" + file.name(),
                              "./" + file.name(),
                              "../shm/" + file.name(),
                              file.name() + "/..",
                              file.name() + std::string("\0x", 2),
                              file.name() + "_link",
                              file.name() + "_pipe",
                              file.name() + "_folder",
                              std::string(256, 'x'),
                              std::string(65536, 'x')};
  for (const std::string& key : keys) {
    SCOPED_TRACE(key.substr(0, 80));
    ExpectFault(Refusal(key, kPage), RegionFault::kKey);
  }
  EXPECT_FALSE(Refusal(file.name(), kPage).has_value());
  EXPECT_FALSE(Refusal("/" + file.name(), kPage).has_value());
  ::unlink(link.c_str());
  ::unlink(pipe.c_str());
  ::rmdir(folder.c_str());
}

TEST(SharedFileTest, OpensNamesWithThePrefixAlone) {
  const ShmFile file(kPage);
  EXPECT_FALSE(Refusal(file.name(), kPage, 0, "swiglu_").has_value());
  EXPECT_FALSE(Refusal("/" + file.name(), kPage, 0, "swiglu_").has_value());
  ExpectFault(Refusal(file.name(), kPage, 0, "other_"), RegionFault::kKey);
  ExpectFault(Refusal(file.name(), kPage, 0, file.name() + "x"), RegionFault::kKey);
}

TEST(SharedFileTest, RefusesAFileThatItMayNotWrite) {
  if (::geteuid() == 0) GTEST_SKIP() << "root may write every file";
  const ShmFile file(kPage, 0400);
  ExpectFault(Refusal(file.name(), kPage), RegionFault::kKey);
}

// Breaking a lease takes 45 s where its holder does not give it back.
TEST(SharedFileTest, DoesNotWaitForAClientThatHoldsALease) {
  const std::string name = absl::StrCat("swiglu_test_lease_", ::getpid());
  const std::string path = "/dev/shm/" + name;
  const Descriptor file(::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  ASSERT_EQ(::ftruncate(file.get(), static_cast<off_t>(kPage)), 0);
  ::signal(SIGIO, SIG_IGN);
  const bool has_lease = ::fcntl(file.get(), F_SETLEASE, F_WRLCK) == 0;
  if (has_lease) ExpectFault(Refusal(name, kPage), RegionFault::kKey);
  ::signal(SIGIO, SIG_DFL);
  ::unlink(path.c_str());
  if (!has_lease) GTEST_SKIP() << "no leases here: " << std::strerror(errno);
}

TEST(SharedFileTest, RefusesWhatTheFileDoesNotHave) {
  const ShmFile file(2 * kPage);
  const auto refusal = Refusal(file.name(), 2 * kPage, kPage);
  ExpectFault(refusal, RegionFault::kSize);
  EXPECT_EQ(refusal->found, static_cast<int64_t>(kPage));
  ExpectFault(Refusal(file.name(), 1, 2 * kPage), RegionFault::kSize);
  ExpectFault(Refusal(file.name(), 1, ~uint64_t{0} / kPage * kPage), RegionFault::kSize);
  ExpectFault(Refusal(file.name(), ~uint64_t{0}, kPage), RegionFault::kSize);
}

TEST(SharedFileTest, RefusesAnOffsetInsideAPage) {
  const ShmFile file(2 * kPage);
  const auto refusal = Refusal(file.name(), 1, 100);
  ExpectFault(refusal, RegionFault::kOffset);
  EXPECT_EQ(refusal->limit, static_cast<int64_t>(kPage));
}

TEST(SharedFileTest, SeesThatTheFileIsTooShort) {
  const ShmFile file(2 * kPage);
  const auto region = Open(file.name(), kPage + 10);
  file.Resize(kPage + 10);
  EXPECT_FALSE(region->IsShrunk());
  file.Resize(kPage + 9);
  EXPECT_TRUE(region->IsShrunk());
  EXPECT_FALSE(region->HasHole());
}

TEST(SharedFileTest, ReadsAndWritesZerosInPlaceOfWhatWasCutOff) {
  const ShmFile file(4 * kPage);
  const auto region = Open(file.name(), 4 * kPage);
  const auto other = Open(file.name(), 4 * kPage);
  std::memset(region->data(), 7, 4 * kPage);
  file.Resize(kPage);
  EXPECT_EQ(region->data()[0], std::byte{7});
  EXPECT_FALSE(region->HasHole());
  EXPECT_EQ(region->data()[2 * kPage], std::byte{0});
  EXPECT_TRUE(region->HasHole());
  EXPECT_FALSE(other->HasHole());
  std::memset(region->data(), 9, 4 * kPage);
  unsigned char first = 0;
  ASSERT_EQ(::pread(file.fd(), &first, 1, 0), 1);
  EXPECT_EQ(first, 9) << "what the file still has is shared as before";
  EXPECT_EQ(other->data()[3 * kPage], std::byte{0});
  EXPECT_TRUE(other->HasHole());
}

TEST(SharedFileTest, GuardsAgainAtAnAddressThatWasGuardedBefore) {
  for (int round = 0; round < 100; ++round) {
    const ShmFile file(2 * kPage);
    const auto region = Open(file.name(), 2 * kPage);
    EXPECT_FALSE(region->HasHole());
    file.Resize(0);
    EXPECT_EQ(region->data()[kPage], std::byte{0});
    EXPECT_TRUE(region->HasHole());
  }
}

TEST(SharedFileDeathTest, LeavesOtherMappingsAlone) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const ShmFile guarded(kPage);
  const auto region = Open(guarded.name(), kPage);
  const ShmFile file(kPage);
  void* const data = ::mmap(nullptr, kPage, PROT_READ, MAP_SHARED, file.fd(), 0);
  ASSERT_NE(data, MAP_FAILED);
  file.Resize(0);
  // The process that dies removes nothing.
  guarded.Unlink();
  file.Unlink();
  EXPECT_DEATH(
      {
        volatile char byte = *static_cast<const char*>(data);
        (void)byte;
      },
      "");
  ::munmap(data, kPage);
}

TEST(SharedFileTest, MapsAFileWithoutAName) {
  const int fd = ::memfd_create("swiglu", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  ASSERT_GE(fd, 0);
  ASSERT_EQ(::ftruncate(fd, static_cast<off_t>(kPage)), 0);
  ASSERT_EQ(::fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
  auto mapped = SharedFile::Map(Descriptor(fd), 0, kPage);
  ASSERT_TRUE(std::holds_alternative<SharedFile>(mapped));
  std::get<SharedFile>(mapped).data()[kPage - 1] = std::byte{5};
}

TEST(SharedFileTest, MapsHugePages) {
  const int fd = ::memfd_create("swiglu", MFD_CLOEXEC | MFD_HUGETLB);
  if (fd < 0) GTEST_SKIP() << "no hugetlbfs here: " << std::strerror(errno);
  constexpr uint64_t kHuge = 2 << 20;
  ASSERT_EQ(::ftruncate(fd, kHuge), 0);
  auto mapped = SharedFile::Map(Descriptor(::dup(fd)), 0, 100);
  if (const auto* refusal = std::get_if<RegionRefusal>(&mapped)) {
    EXPECT_EQ(refusal->fault, RegionFault::kNoMemory);
    GTEST_SKIP() << "no huge pages are reserved here";
  }
  EXPECT_EQ(std::get<SharedFile>(mapped).page_bytes(), kHuge);
  EXPECT_EQ(std::get<SharedFile>(mapped).mapped_bytes(), kHuge);
  std::get<SharedFile>(mapped).data()[0] = std::byte{1};
  auto inside = SharedFile::Map(Descriptor(fd), kPage, 100);
  ASSERT_TRUE(std::holds_alternative<RegionRefusal>(inside));
  EXPECT_EQ(std::get<RegionRefusal>(inside).fault, RegionFault::kOffset);
}

}  // namespace
}  // namespace swiglu::server
