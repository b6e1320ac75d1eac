// SPDX-License-Identifier: Apache-2.0
//
// Listening addresses: good ones, ones that are taken, ones that are none, and what happens to the
// files of unix sockets.
#include "server/base/listen_socket.h"

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
class ListenSocketTest : public testing::Test {
 protected:
  ListenSocketTest() {
    char name[] = "/tmp/listen_XXXXXX";
    folder_ = ::mkdtemp(name);
  }
  ~ListenSocketTest() override {
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

TEST_F(ListenSocketTest, TakesAFreePort) {
  EXPECT_TRUE(ListenTcp("127.0.0.1:0").ok());
  EXPECT_TRUE(ListenTcp("localhost:0").ok());
  EXPECT_TRUE(ListenTcp("0.0.0.0:0").ok());
}

TEST_F(ListenSocketTest, SaysThatAPortIsInUse) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in name{};
  name.sin_family = AF_INET;
  name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(name);
  ASSERT_EQ(::bind(fd, reinterpret_cast<const sockaddr*>(&name), size), 0);
  ASSERT_EQ(::listen(fd, 1), 0);
  ASSERT_EQ(::getsockname(fd, reinterpret_cast<sockaddr*>(&name), &size), 0);

  const std::string address = absl::StrCat("127.0.0.1:", ntohs(name.sin_port));
  const absl::Status status = ListenTcp(address).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(status.message(),
            absl::StrCat("cannot listen on ", address, ": Address already in use"));
  ::close(fd);
  EXPECT_TRUE(ListenTcp(address).ok());
}

TEST_F(ListenSocketTest, SaysThatAnAddressIsOfAnotherHost) {
  // 192.0.2.0/24 is set aside for documentation.
  const absl::Status status = ListenTcp("192.0.2.1:0").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(status.message(), "cannot listen on 192.0.2.1:0: Cannot assign requested address");
}

TEST_F(ListenSocketTest, SaysWhatIsNoAddress) {
  for (const std::string address :
       {"", "8001", ":8001", "host", "host:", "host:port", "host:-1", "host:65536", "::1:80"}) {
    const absl::Status status = ListenTcp(address).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << address;
    EXPECT_EQ(status.message(), "'" + address + "' is not an address: HOST:PORT is needed");
  }
}

TEST_F(ListenSocketTest, TakesAPathWhereNothingIs) {
  const auto listening = ListenUnix(Path(), 0600);
  EXPECT_TRUE(listening.ok());
  EXPECT_TRUE(FileExists());
  // A second one finds the first.
  EXPECT_EQ(ListenUnix(Path(), 0600).status().message(),
            "cannot listen on " + Address() + ": another server answers there");
}

TEST_F(ListenSocketTest, RemovesAStaleSocket) {
  ::close(BindSocket(SOCK_STREAM));
  ASSERT_TRUE(FileExists());
  EXPECT_TRUE(ListenUnix(Path(), 0600).ok());
}

TEST_F(ListenSocketTest, LeavesALiveSocketAlone) {
  const int fd = BindSocket(SOCK_STREAM);
  ASSERT_EQ(::listen(fd, 8), 0);
  const absl::Status status = ListenUnix(Path(), 0600).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(status.message(), "cannot listen on " + Address() + ": another server answers there");
  EXPECT_TRUE(FileExists());
  ::close(fd);
}

TEST_F(ListenSocketTest, LeavesALiveSocketOfAnotherTypeAlone) {
  const int fd = BindSocket(SOCK_DGRAM);
  EXPECT_EQ(ListenUnix(Path(), 0600).status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(FileExists());
  ::close(fd);
}

TEST_F(ListenSocketTest, LeavesOtherFilesAlone) {
  std::ofstream(Path()) << "precious";
  const absl::Status status = ListenUnix(Path(), 0600).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(status.message(),
            "cannot listen on " + Address() + ": a file that is no socket is there");
  EXPECT_TRUE(FileExists());
}

TEST_F(ListenSocketTest, SaysThatAPathIsTooLong) {
  const std::string path = "/tmp/" + std::string(200, 'x');
  const absl::Status status = ListenUnix(path, 0600).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(status.message(),
            "cannot listen on unix:" + path + ": the path has 205 bytes; at most 107 are possible");
}

}  // namespace
}  // namespace swiglu::server
