// SPDX-License-Identifier: Apache-2.0
//
// Reading a pipe to its end and up to a limit.
#include "client/files/stream_bytes.h"

#include <fcntl.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <string>
#include <thread>
#include <utility>

#include "gtest/gtest.h"
#include "tests/client/bytes.h"

namespace swiglu::files {
namespace {

// A pipe into which a thread writes a text, which it then closes.
class PipeOf {
 public:
  explicit PipeOf(std::string text) {
    EXPECT_EQ(pipe2(ends_, O_CLOEXEC), 0);
    writer_ = std::thread([this, text = std::move(text)] {
      EXPECT_EQ(write(ends_[1], text.data(), text.size()), static_cast<ssize_t>(text.size()));
      close(ends_[1]);
    });
  }
  ~PipeOf() {
    writer_.join();
    close(ends_[0]);
  }
  PipeOf(const PipeOf&) = delete;
  PipeOf& operator=(const PipeOf&) = delete;

  int fd() const { return ends_[0]; }

 private:
  int ends_[2];
  std::thread writer_;
};

TEST(StreamBytesTest, ReadsToTheEndThroughSeveralCapacities) {
  const std::string text = Pattern(5'000'001, 1);
  const PipeOf pipe(text);
  StreamBytes stream;
  ASSERT_TRUE(stream.ReadUntil(pipe.fd(), 6'000'000).ok());
  EXPECT_TRUE(AsText(stream.bytes()) == text);
}

TEST(StreamBytesTest, StopsAtTheLimitAndGoesOnFromThere) {
  const PipeOf pipe("abcdefgh");
  StreamBytes stream;
  ASSERT_TRUE(stream.ReadUntil(pipe.fd(), 3).ok());
  EXPECT_EQ(AsText(stream.bytes()), "abc");
  ASSERT_TRUE(stream.ReadUntil(pipe.fd(), 100).ok());
  EXPECT_EQ(AsText(stream.bytes()), "abcdefgh");
}

TEST(StreamBytesTest, AnEmptyStreamHasNoBytes) {
  const PipeOf pipe("");
  StreamBytes stream;
  ASSERT_TRUE(stream.ReadUntil(pipe.fd(), 10).ok());
  EXPECT_TRUE(stream.bytes().empty());
}

// A timer has nothing to read at first, and 8 bytes once it has run out.
TEST(StreamBytesTest, WaitsForBytesOfAStreamThatDoesNotBlock) {
  const int timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
  ASSERT_GE(timer, 0);
  const itimerspec once = {.it_interval = {}, .it_value = {.tv_sec = 0, .tv_nsec = 20'000'000}};
  ASSERT_EQ(timerfd_settime(timer, 0, &once, nullptr), 0);
  StreamBytes stream;
  EXPECT_EQ(stream.ReadUntil(timer, 8), absl::OkStatus());
  EXPECT_EQ(stream.bytes().size(), 8u);
  close(timer);
}

TEST(StreamBytesTest, TellsThatItCannotRead) {
  StreamBytes stream;
  EXPECT_EQ(stream.ReadUntil(-1, 10).message(), "cannot read: Bad file descriptor");
}

}  // namespace
}  // namespace swiglu::files
