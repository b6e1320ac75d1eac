// SPDX-License-Identifier: Apache-2.0
//
// What the server's allocator holds, and gives back.
#include "server/base/heap.h"

#include <unistd.h>

#include <cstdint>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/byte_units.h"

namespace swiglu::server {
namespace {

// Of this process.
int64_t ResidentBytes() {
  std::ifstream statm("/proc/self/statm");
  int64_t total_pages = 0;
  int64_t resident_pages = 0;
  statm >> total_pages >> resident_pages;
  return resident_pages * ::sysconf(_SC_PAGESIZE);
}

// As gRPC receives messages.
void UseAndFree(int64_t bytes) {
  constexpr int64_t kSliceBytes = int64_t{64} << 10;
  std::vector<std::unique_ptr<std::string>> slices;
  for (int64_t i = 0; i < bytes / kSliceBytes; ++i) {
    slices.push_back(std::make_unique<std::string>(kSliceBytes, 'x'));
  }
}

TEST(HeapTest, ReleasesWhatIsUnusedBeyondWhatItMayHold) {
  const int64_t before = ResidentBytes();
  UseAndFree(256 * kMiB);
  ASSERT_GT(ResidentBytes(), before + 128 * kMiB) << "it gave back by itself";
  ReleaseUnusedHeap(before + 1024 * kMiB);
  EXPECT_GT(ResidentBytes(), before + 128 * kMiB);
  ReleaseUnusedHeap(before + 64 * kMiB);
  EXPECT_LT(ResidentBytes(), before + 96 * kMiB);
}

}  // namespace
}  // namespace swiglu::server
