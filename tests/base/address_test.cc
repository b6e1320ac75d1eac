// SPDX-License-Identifier: Apache-2.0
//
// Addresses taken apart, and what is no address.
#include "server/base/address.h"

#include <optional>

#include "gtest/gtest.h"

namespace swiglu::server {
namespace {

TEST(AddressTest, TakesHostAndPortApart) {
  const std::optional<HostPort> name = ParseHostPort("localhost:0");
  ASSERT_TRUE(name.has_value());
  EXPECT_EQ(name->host, "localhost");
  EXPECT_EQ(name->port, 0);
  const std::optional<HostPort> ipv6 = ParseHostPort("[::1]:65535");
  ASSERT_TRUE(ipv6.has_value());
  EXPECT_EQ(ipv6->host, "::1");
  EXPECT_EQ(ipv6->port, 65535);
}

TEST(AddressTest, RefusesWhatIsNoHostAndPort) {
  for (const char* text : {"", "8001", ":8001", "h", "h:", "h:65536", "h:+1", "h: 1", "h:-1", "h:x",
                           "::1:80", "[]:1", "[::1:80", "unix:/x"}) {
    EXPECT_FALSE(ParseHostPort(text).has_value()) << text;
  }
}

TEST(AddressTest, FindsThePathOfAUnixAddress) {
  EXPECT_EQ(UnixSocketPath("unix:/run/s"), "/run/s");
  EXPECT_EQ(UnixSocketPath("unix:///run/s"), "/run/s");
  EXPECT_EQ(UnixSocketPath("127.0.0.1:1"), "");
}

TEST(AddressTest, IsOfEitherKind) {
  EXPECT_TRUE(IsAddress("h:1"));
  EXPECT_TRUE(IsAddress("unix:s"));
  for (const char* text : {"", "h", "unix:", "unix://"}) EXPECT_FALSE(IsAddress(text)) << text;
}

TEST(AddressTest, TakesAnotherPort) {
  EXPECT_EQ(WithPort("127.0.0.1:0", 8001), "127.0.0.1:8001");
  EXPECT_EQ(WithPort("[::1]:0", 8001), "[::1]:8001");
}

}  // namespace
}  // namespace swiglu::server
