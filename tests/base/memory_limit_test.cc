// SPDX-License-Identifier: Apache-2.0
//
// Memory limits of control groups, read from a made-up /proc and /sys.
#include "server/base/memory_limit.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "gtest/gtest.h"
#include "tests/byte_units.h"

namespace swiglu::server {
namespace {

class MemoryLimitTest : public testing::Test {
 protected:
  MemoryLimitTest() {
    std::string path = testing::TempDir() + "/memory_limit_XXXXXX";
    root_ = ::mkdtemp(path.data());
  }
  ~MemoryLimitTest() override { std::filesystem::remove_all(root_); }

  void Write(const std::string& file, const std::string& text) {
    std::filesystem::create_directories(std::filesystem::path(root_ + file).parent_path());
    std::ofstream(root_ + file) << text;
  }

  std::string root_;
  const int64_t machine_bytes_ =
      static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGESIZE);
};

TEST_F(MemoryLimitTest, NoGroupsMeansTheMachine) {
  EXPECT_EQ(MemoryLimitBytes(root_), machine_bytes_);
}

TEST_F(MemoryLimitTest, VersionTwoLimitOfTheGroupItself) {
  Write("/proc/self/cgroup", "0::/system.slice/swiglu.service\n");
  Write("/sys/fs/cgroup/system.slice/swiglu.service/memory.max", "67108864\n");
  EXPECT_EQ(MemoryLimitBytes(root_), 64 * kMiB);
}

TEST_F(MemoryLimitTest, VersionTwoSmallestOfTheGroupsAbove) {
  Write("/proc/self/cgroup", "0::/a/b\n");
  Write("/sys/fs/cgroup/a/b/memory.max", "max\n");
  Write("/sys/fs/cgroup/a/memory.max", "33554432\n");
  EXPECT_EQ(MemoryLimitBytes(root_), 32 * kMiB);
}

TEST_F(MemoryLimitTest, VersionTwoLimitAboveThatIsSmallerThanTheGroupsOwn) {
  Write("/proc/self/cgroup", "0::/a/b\n");
  Write("/sys/fs/cgroup/a/b/memory.max", "67108864\n");
  Write("/sys/fs/cgroup/a/memory.max", "33554432\n");
  EXPECT_EQ(MemoryLimitBytes(root_), 32 * kMiB);
}

TEST_F(MemoryLimitTest, VersionTwoBesideVersionOne) {
  Write("/proc/self/cgroup", "4:memory:/\n0::/a\n");
  Write("/sys/fs/cgroup/unified/a/memory.max", "33554432\n");
  EXPECT_EQ(MemoryLimitBytes(root_), 32 * kMiB);
}

TEST_F(MemoryLimitTest, NameOfAGroupMayHaveColons) {
  Write("/proc/self/cgroup", "0::/a:b:c\n");
  Write("/sys/fs/cgroup/a:b:c/memory.max", "33554432\n");
  EXPECT_EQ(MemoryLimitBytes(root_), 32 * kMiB);
}

TEST_F(MemoryLimitTest, VersionOneGroupOfAnotherControllerIsNone) {
  Write("/proc/self/cgroup", "5:cpu,cpuacct:/c\n4:memory:/m\n");
  Write("/sys/fs/cgroup/memory/c/memory.limit_in_bytes", "4194304\n");
  Write("/sys/fs/cgroup/memory/m/memory.limit_in_bytes", "8388608\n");
  EXPECT_EQ(MemoryLimitBytes(root_), 8 * kMiB);
}

TEST_F(MemoryLimitTest, VersionTwoContainerWhoseGroupIsTheRoot) {
  Write("/proc/self/cgroup", "0::/\n");
  Write("/sys/fs/cgroup/memory.max", "16777216\n");
  EXPECT_EQ(MemoryLimitBytes(root_), 16 * kMiB);
}

TEST_F(MemoryLimitTest, VersionOneLimit) {
  Write("/proc/self/cgroup", "5:cpu,cpuacct:/c\n4:memory:/docker/abc\n");
  Write("/sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes", "8388608\n");
  EXPECT_EQ(MemoryLimitBytes(root_), 8 * kMiB);
}

TEST_F(MemoryLimitTest, VersionOneContainerThatSeesTheHostsPath) {
  Write("/proc/self/cgroup", "4:memory:/docker/abc\n");
  Write("/sys/fs/cgroup/memory/memory.limit_in_bytes", "4194304\n");
  EXPECT_EQ(MemoryLimitBytes(root_), 4 * kMiB);
}

TEST_F(MemoryLimitTest, NoLimitInEitherVersionMeansTheMachine) {
  Write("/proc/self/cgroup", "4:memory:/\n0::/\n");
  Write("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
  Write("/sys/fs/cgroup/unified/memory.max", "max\n");
  EXPECT_EQ(MemoryLimitBytes(root_), machine_bytes_);
}

TEST_F(MemoryLimitTest, NonsenseIsIgnored) {
  Write("/proc/self/cgroup", "nonsense\n0::a\n:::\n\n");
  Write("/sys/fs/cgroup/memory.max", "-5\n");
  EXPECT_EQ(MemoryLimitBytes(root_), machine_bytes_);
}

}  // namespace
}  // namespace swiglu::server
