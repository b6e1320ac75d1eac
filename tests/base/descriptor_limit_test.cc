// SPDX-License-Identifier: Apache-2.0
//
// The limit on open descriptors, and what it leaves for connections.
#include "server/base/descriptor_limit.h"

#include <sys/resource.h>

#include "gtest/gtest.h"

namespace swiglu::server {
namespace {

TEST(DescriptorLimitTest, IsRaisedToTheHardOne) {
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  rlimit low = before;
  low.rlim_cur = 100;
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &low), 0);
  const DescriptorLimit limit = RaiseDescriptorLimit();
  EXPECT_EQ(limit.before, 100);
  EXPECT_EQ(limit.now, static_cast<int64_t>(before.rlim_max));
  rlimit after{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &after), 0);
  EXPECT_EQ(after.rlim_cur, before.rlim_max);
  ::setrlimit(RLIMIT_NOFILE, &before);
}

TEST(ConnectionLimitTest, LeavesDescriptorsForTheProcess) {
  EXPECT_EQ(ConnectionLimit(4096, 1'048'576), 4096);
  EXPECT_EQ(ConnectionLimit(4096, 4096 + 192), 4096);
  EXPECT_EQ(ConnectionLimit(4096, 4096 + 191), 4095);
  EXPECT_EQ(ConnectionLimit(4096, 1024), 832);
  EXPECT_EQ(ConnectionLimit(4096, 384), 192);
  EXPECT_EQ(ConnectionLimit(4096, 100), 50);
  EXPECT_EQ(ConnectionLimit(7, 1024), 7);
  EXPECT_EQ(ConnectionLimit(4096, 0), 1);
}

}  // namespace
}  // namespace swiglu::server
