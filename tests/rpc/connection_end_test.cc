// SPDX-License-Identifier: Apache-2.0
//
// The end of connections, over plain sockets: a peer gets all that was written to it first.
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <thread>
#include <vector>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "server/base/descriptor.h"
#include "server/connections/connections.h"
#include "tests/rpc/test_doubles.h"

namespace swiglu::server {
namespace {

// A listening socket, a connection to it, and more bytes written than that takes unread.
class ConnectionEndTest : public testing::Test {
 protected:
  ConnectionEndTest()
      : listening_(::socket(AF_INET, SOCK_STREAM, 0)), peer_(::socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    auto* const any = reinterpret_cast<sockaddr*>(&address);
    // So that little is enough; accepted connections have it from here.
    const int send_buffer = 64 << 10;
    EXPECT_EQ(
        ::setsockopt(listening_.get(), SOL_SOCKET, SO_SNDBUF, &send_buffer, sizeof(send_buffer)),
        0);
    EXPECT_EQ(::bind(listening_.get(), any, size), 0);
    EXPECT_EQ(::listen(listening_.get(), 1), 0);
    EXPECT_EQ(::getsockname(listening_.get(), any, &size), 0);
    EXPECT_EQ(::connect(peer_.get(), any, size), 0);
    accepted_ = Descriptor(::accept(listening_.get(), nullptr, nullptr));
    connections_.Add(accepted_.get());
    std::vector<char> bytes(64 << 10, 'x');
    ssize_t written = 0;
    while ((written = ::send(accepted_.get(), bytes.data(), bytes.size(), MSG_DONTWAIT)) > 0) {
      num_written_ += written;
    }
  }

  // All that the peer gets until the connection ends.
  ssize_t ReadToTheEnd() {
    std::vector<char> bytes(64 << 10);
    ssize_t all = 0;
    ssize_t size = 0;
    while ((size = ::recv(peer_.get(), bytes.data(), bytes.size(), 0)) > 0) all += size;
    EXPECT_EQ(size, 0);
    return all;
  }

  Descriptor listening_, peer_, accepted_{-1};
  Connections connections_;
  ssize_t num_written_ = 0;
};

TEST_F(ConnectionEndTest, EndAfterThePeerHasTakenWhatWasWritten) {
  absl::Notification closed;
  std::thread closer([&] {
    connections_.Close(absl::Now() + kPatience);
    closed.Notify();
  });
  EXPECT_FALSE(closed.WaitForNotificationWithTimeout(absl::Milliseconds(100)));
  // What is still on its way may be written meanwhile.
  EXPECT_NE(::send(accepted_.get(), "", 0, MSG_NOSIGNAL), -1);
  EXPECT_EQ(ReadToTheEnd(), num_written_);
  closer.join();
  EXPECT_EQ(::send(accepted_.get(), "x", 1, MSG_NOSIGNAL), -1);
}

TEST_F(ConnectionEndTest, EndAtTheDeadlineIfThePeerTakesNothing) {
  const absl::Time deadline = absl::Now() + absl::Milliseconds(50);
  connections_.Close(deadline);
  EXPECT_GE(absl::Now(), deadline);
  EXPECT_EQ(::send(accepted_.get(), "x", 1, MSG_NOSIGNAL), -1);
  // What was written by then still comes.
  EXPECT_EQ(ReadToTheEnd(), num_written_);
}

TEST_F(ConnectionEndTest, EndOfAllEndsBothDirectionsAtOnce) {
  ASSERT_EQ(::send(peer_.get(), "x", 1, 0), 1);
  connections_.EndAll();
  EXPECT_EQ(::send(accepted_.get(), "x", 1, MSG_NOSIGNAL), -1);
  EXPECT_EQ(ReadToTheEnd(), num_written_);
}

// What the kernel says of `socket` now.
short EventsOf(const Descriptor& socket) {
  pollfd polled{socket.get(), POLLOUT, 0};
  EXPECT_GE(::poll(&polled, 1, 0), 0);
  return polled.revents;
}

// Whoever waits until more can be written hears of the end, though the peer reads nothing.
TEST(UnixConnectionEndTest, EndOfAllWakesAWriterWhosePeerReadsNothing) {
  int ends[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
  const Descriptor accepted(ends[0]);
  const Descriptor peer(ends[1]);
  Connections connections;
  connections.Add(accepted.get());
  const std::vector<char> bytes(64 << 10, 'x');
  while (::send(accepted.get(), bytes.data(), bytes.size(), MSG_DONTWAIT) > 0) {
  }
  connections.Close(absl::Now() + kPatience);
  EXPECT_EQ(EventsOf(accepted), 0);
  connections.EndAll();
  EXPECT_NE(EventsOf(accepted) & POLLHUP, 0);
}

}  // namespace
}  // namespace swiglu::server
