// SPDX-License-Identifier: Apache-2.0
//
// What a starved process is told. Each check runs in a process of its own, whose limits it lowers.
#include "server/start_check.h"

#include <sys/resource.h>
#include <unistd.h>

#include <cstdlib>
#include <iostream>
#include <limits>

#include "gtest/gtest.h"

namespace swiglu::server {
namespace {

// Far from what a process of one test may use.
constexpr uid_t kNobodyElse = 54321;

void Limit(__rlimit_resource resource, rlim_t limit) {
  const rlimit both{limit, limit};
  if (::setrlimit(resource, &both) != 0) std::abort();
}

// Ends this process: with 0 if there is all that is needed, with 1 and the sentence if not.
[[noreturn]] void Check(const StartNeeds& needs) {
  const absl::Status status = CheckStart(needs);
  if (status.ok()) std::_Exit(0);
  std::cerr << status.message() << std::endl;
  std::_Exit(1);
}

TEST(StartCheckDeathTest, NoLimitsAreEnough) {
  EXPECT_EXIT(Check({.descriptors = 32, .threads = 16, .address_space_bytes = int64_t{1} << 40}),
              testing::ExitedWithCode(0), "");
}

TEST(StartCheckDeathTest, DescriptorsAreCounted) {
  // 0, 1 and 2 are open, and perhaps some of the test's own.
  EXPECT_EXIT((Limit(RLIMIT_NOFILE, 40), Check({.descriptors = 38})), testing::ExitedWithCode(1),
              "cannot start: 38 more file descriptors are needed, and [0-9]+ are to be had "
              "\\(ulimit -n\\)");
  EXPECT_EXIT((Limit(RLIMIT_NOFILE, 64), Check({.descriptors = 32})), testing::ExitedWithCode(0),
              "");
}

TEST(StartCheckDeathTest, ThreadsAreCounted) {
  if (::getuid() != 0) GTEST_SKIP() << "only root can become a user without other processes";
  const auto as_nobody_else = [](rlim_t num_processes) {
    Limit(RLIMIT_NPROC, num_processes);
    if (::setuid(kNobodyElse) != 0) std::abort();
  };
  EXPECT_EXIT((as_nobody_else(5), Check({.threads = 5})), testing::ExitedWithCode(1),
              "cannot start: 5 more threads are needed, and [0-4] are to be had \\(ulimit -u, or "
              "pids.max of the control group\\)");
  EXPECT_EXIT((as_nobody_else(64), Check({.threads = 5})), testing::ExitedWithCode(0), "");
}

#if !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__) && !defined(__clang__)
// Sanitizers take all of the address space.
TEST(StartCheckDeathTest, AddressSpaceIsMeasuredWhereItIsLimited) {
  for (const auto resource : {RLIMIT_AS, RLIMIT_DATA}) {
    EXPECT_EXIT(
        (Limit(resource, rlim_t{1} << 30), Check({.address_space_bytes = int64_t{1} << 30})),
        testing::ExitedWithCode(1),
        "cannot start: 1073741824 more bytes of address space are needed, for "
        "--memory_budget_bytes, stacks and libraries, and are not to be had");
    EXPECT_EXIT(
        (Limit(resource, rlim_t{1} << 30), Check({.address_space_bytes = int64_t{1} << 28})),
        testing::ExitedWithCode(0), "");
    // Each thread needs its stack.
    EXPECT_EXIT((Limit(resource, rlim_t{1} << 30),
                 Check({.threads = 1000, .address_space_bytes = 1 << 20})),
                testing::ExitedWithCode(1), "more bytes of address space are needed");
  }
}
#endif

TEST(StartCheckTest, NeedsGrowWithTheFlags) {
  const StartNeeds base = NeedsOfServer(1, 0, 1, 0);
  EXPECT_GE(base.descriptors, 17);
  EXPECT_EQ(NeedsOfServer(4, 0, 1, 0).threads, base.threads + 3);
  EXPECT_EQ(NeedsOfServer(1, 5, 1, 0).threads, base.threads + 5);
  EXPECT_EQ(NeedsOfServer(1, 0, 4, 0).threads, base.threads + 6);
  EXPECT_EQ(NeedsOfServer(1, 0, 1, 1000).address_space_bytes, base.address_space_bytes + 1500);
  EXPECT_GT(NeedsOfServer(1, 0, 1, std::numeric_limits<int64_t>::max()).address_space_bytes, 0);
}

}  // namespace
}  // namespace swiglu::server
