// SPDX-License-Identifier: Apache-2.0
//
// Listening addresses: good ones, ones that are taken, ones that are none, and what happens to the
// files of unix sockets.
#include "server/rpc/listen_address.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

namespace swiglu::server {
namespace {

// A folder with a short path, removed with everything in it.
class ListenAddressTest : public testing::Test {
 protected:
  ListenAddressTest() {
    char name[] = "/tmp/listen_XXXXXX";
    folder_ = ::mkdtemp(name);
  }
  ~ListenAddressTest() override {
    ::unlink(Path().c_str());
    ::rmdir(folder_.c_str());
  }

  std::string Path() const { return folder_ + "/socket"; }
  std::string Address() const { return "unix:" + Path(); }
  bool FileExists() const {
    struct stat info {};
    return ::lstat(Path().c_str(), &info) == 0;
  }

  // A unix socket of that type, bound to Path(). The caller closes it.
  int BindSocket(int type) const {
    const int fd = ::socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
    sockaddr_un name{};
    name.sun_family = AF_UNIX;
    std::memcpy(name.sun_path, Path().data(), Path().size());
    EXPECT_EQ(::bind(fd, reinterpret_cast<const sockaddr*>(&name), sizeof(name)), 0);
    return fd;
  }

  std::string folder_;
};

TEST_F(ListenAddressTest, TakesAFreePort) {
  EXPECT_TRUE(PrepareListenAddress("127.0.0.1:0").ok());
  EXPECT_TRUE(PrepareListenAddress("localhost:0").ok());
  EXPECT_TRUE(PrepareListenAddress("0.0.0.0:0").ok());
}

TEST_F(ListenAddressTest, SaysThatAPortIsInUse) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in name{};
  name.sin_family = AF_INET;
  name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(name);
  ASSERT_EQ(::bind(fd, reinterpret_cast<const sockaddr*>(&name), size), 0);
  ASSERT_EQ(::listen(fd, 1), 0);
  ASSERT_EQ(::getsockname(fd, reinterpret_cast<sockaddr*>(&name), &size), 0);

  const std::string address = absl::StrCat("127.0.0.1:", ntohs(name.sin_port));
  const absl::Status status = PrepareListenAddress(address);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(status.message(),
            absl::StrCat("cannot listen on ", address, ": Address already in use"));
  ::close(fd);
  EXPECT_TRUE(PrepareListenAddress(address).ok());
}

TEST_F(ListenAddressTest, SaysThatAnAddressIsOfAnotherHost) {
  // 192.0.2.0/24 is set aside for documentation.
  const absl::Status status = PrepareListenAddress("192.0.2.1:0");
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(status.message(), "cannot listen on 192.0.2.1:0: Cannot assign requested address");
}

TEST_F(ListenAddressTest, SaysWhatIsNoAddress) {
  for (const std::string address :
       {"", "8001", ":8001", "host", "host:", "host:port", "host:-1", "host:65536", "unix:"}) {
    const absl::Status status = PrepareListenAddress(address);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << address;
    EXPECT_EQ(status.message(),
              "'" + address + "' is not an address: HOST:PORT or unix:/path is needed");
  }
}

TEST_F(ListenAddressTest, TakesAPathWhereNothingIs) {
  EXPECT_TRUE(PrepareListenAddress(Address()).ok());
  EXPECT_TRUE(PrepareListenAddress("unix://" + Path()).ok());
  EXPECT_FALSE(FileExists());
}

TEST_F(ListenAddressTest, RemovesAStaleSocket) {
  ::close(BindSocket(SOCK_STREAM));
  ASSERT_TRUE(FileExists());
  EXPECT_TRUE(PrepareListenAddress(Address()).ok());
  EXPECT_FALSE(FileExists());
}

TEST_F(ListenAddressTest, LeavesALiveSocketAlone) {
  const int fd = BindSocket(SOCK_STREAM);
  ASSERT_EQ(::listen(fd, 8), 0);
  const absl::Status status = PrepareListenAddress(Address());
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(status.message(), "cannot listen on " + Address() + ": another server answers there");
  EXPECT_TRUE(FileExists());
  ::close(fd);
}

TEST_F(ListenAddressTest, LeavesALiveSocketOfAnotherTypeAlone) {
  const int fd = BindSocket(SOCK_DGRAM);
  EXPECT_EQ(PrepareListenAddress(Address()).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(FileExists());
  ::close(fd);
}

TEST_F(ListenAddressTest, LeavesOtherFilesAlone) {
  std::ofstream(Path()) << "precious";
  const absl::Status status = PrepareListenAddress(Address());
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(status.message(),
            "cannot listen on " + Address() + ": a file that is no socket is there");
  EXPECT_TRUE(FileExists());
}

TEST_F(ListenAddressTest, SaysThatAPathIsTooLong) {
  const std::string path = "/tmp/" + std::string(200, 'x');
  const absl::Status status = PrepareListenAddress("unix:" + path);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(status.message(),
            "cannot listen on unix:" + path + ": the path has 205 bytes; at most 107 are possible");
}

TEST_F(ListenAddressTest, FindsThePathOfAUnixAddress) {
  EXPECT_EQ(UnixSocketPath("unix:/run/s"), "/run/s");
  EXPECT_EQ(UnixSocketPath("unix:///run/s"), "/run/s");
  EXPECT_EQ(UnixSocketPath("127.0.0.1:1"), "");
}

}  // namespace
}  // namespace swiglu::server
