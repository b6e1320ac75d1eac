// SPDX-License-Identifier: Apache-2.0
//
// How gRPC's addresses of peers read in the log.
#include "gtest/gtest.h"
#include "server/connections/connections.h"

namespace swiglu::server {
namespace {

TEST(PeerTest, IsTheAddressInPlainLetters) {
  EXPECT_EQ(ReadablePeer("ipv4:10.0.0.1:1234"), "ipv4:10.0.0.1:1234");
  EXPECT_EQ(ReadablePeer("ipv6:%5B::1%5D:1234"), "ipv6:[::1]:1234");
  EXPECT_EQ(ReadablePeer("ipv6:[fe80::1]:1234"), "ipv6:[fe80::1]:1234");
  EXPECT_EQ(ReadablePeer("unix:/tmp/a%20b"), "unix:/tmp/a b");
  EXPECT_EQ(ReadablePeer("unix:"), "unix:");
}

TEST(PeerTest, LeavesWhatIsNoEscapeAsItIs) {
  EXPECT_EQ(ReadablePeer("unix:/a%"), "unix:/a%");
  EXPECT_EQ(ReadablePeer("unix:/a%4"), "unix:/a%4");
  EXPECT_EQ(ReadablePeer("unix:/a%zz"), "unix:/a%zz");
  EXPECT_EQ(ReadablePeer(""), "");
}

}  // namespace
}  // namespace swiglu::server
