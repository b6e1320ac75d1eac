// SPDX-License-Identifier: Apache-2.0
//
// Lines into pipes that are read, that are not, and that nobody can read any more.
#include "server/log/line_writer.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gtest/gtest.h"

namespace swiglu::logging {
namespace {

constexpr std::chrono::seconds kLong{60};
constexpr std::chrono::milliseconds kShort{1};
constexpr int kPipeBytes = 4096;

std::string Gap(int64_t num_dropped) { return absl::StrCat("gap ", num_dropped, "\n"); }

// A pipe that takes kPipeBytes while nobody reads.
class Pipe {
 public:
  Pipe() {
    EXPECT_EQ(::pipe2(ends_, O_CLOEXEC), 0);
    EXPECT_EQ(::fcntl(ends_[1], F_SETPIPE_SZ, kPipeBytes), kPipeBytes);
  }
  ~Pipe() {
    CloseReader();
    ::close(ends_[1]);
  }

  int writer() const { return ends_[1]; }

  void CloseReader() {
    if (ends_[0] >= 0) ::close(ends_[0]);
    ends_[0] = -1;
  }

  void Fill() const {
    const std::string line = std::string(kPipeBytes - 1, '.') + "\n";
    EXPECT_EQ(::write(ends_[1], line.data(), line.size()), kPipeBytes);
  }

  // The next lines, `last` the last of them.
  std::vector<std::string> ReadUntil(const std::string& last) {
    std::vector<std::string> lines;
    while (lines.empty() || lines.back() != last) {
      const size_t end = received_.find('\n');
      if (end != std::string::npos) {
        lines.push_back(received_.substr(0, end));
        received_.erase(0, end + 1);
        continue;
      }
      char buffer[4096];
      const ssize_t count = ::read(ends_[0], buffer, sizeof(buffer));
      if (count <= 0) break;
      received_.append(buffer, static_cast<size_t>(count));
    }
    return lines;
  }

 private:
  int ends_[2] = {-1, -1};
  std::string received_;
};

// Line `i` of `num_bytes`, without its newline.
std::string Line(int i, size_t num_bytes) {
  std::string line = absl::StrCat(i, " ");
  line.resize(num_bytes - 1, 'x');
  return line;
}

TEST(LineWriterTest, AtFirstTheCallerWrites) {
  Pipe pipe;
  LineWriter writer(pipe.writer(), Gap);
  writer.Write("a\n");
  writer.Write("b\n");
  EXPECT_EQ(pipe.ReadUntil("b"), (std::vector<std::string>{"a", "b"}));
  EXPECT_TRUE(writer.Flush(kShort));
}

TEST(LineWriterTest, LinesComeOutInOrderAndWhole) {
  Pipe pipe;
  LineWriter writer(pipe.writer(), Gap);
  ASSERT_TRUE(writer.Start());
  std::vector<std::string> written;
  for (int i = 0; i < 1000; ++i) written.push_back(Line(i, 100));
  std::thread logging([&] {
    for (const std::string& line : written) writer.Write(line + "\n");
  });
  EXPECT_EQ(pipe.ReadUntil(written.back()), written);
  logging.join();
  EXPECT_TRUE(writer.Flush(kLong));
  EXPECT_EQ(writer.num_dropped(), 0);
}

TEST(LineWriterTest, PipeThatNobodyReadsMakesNobodyWait) {
  constexpr int kNumLines = 5000;
  constexpr size_t kLineBytes = 100;
  Pipe pipe;
  pipe.Fill();
  LineWriter writer(pipe.writer(), Gap);
  ASSERT_TRUE(writer.Start());
  // If one of them waited, all would end here.
  for (int i = 0; i < kNumLines; ++i) writer.Write(Line(i, kLineBytes) + "\n");
  EXPECT_FALSE(writer.Flush(kShort));
  const int64_t num_dropped = writer.num_dropped();

  // What it kept comes out in order when somebody reads, the latest lines among it, and each gap is
  // as long as it says.
  int next = 0;
  int num_read = 0;
  int64_t num_told = 0;
  for (const std::string& line : pipe.ReadUntil(Line(kNumLines - 1, kLineBytes))) {
    if (line[0] == '.') continue;
    const std::vector<std::string> words = absl::StrSplit(line, ' ');
    if (words[0] == "gap") {
      int64_t num_lines = 0;
      ASSERT_TRUE(absl::SimpleAtoi(words[1], &num_lines));
      num_told += num_lines;
      next += static_cast<int>(num_lines);
    } else {
      EXPECT_EQ(line, Line(next++, kLineBytes));
      ++num_read;
    }
  }
  EXPECT_EQ(next, kNumLines);
  EXPECT_EQ(num_told, num_dropped);
  EXPECT_EQ(writer.num_dropped(), num_dropped);
  // All that may wait did wait; at most one piece was under way.
  EXPECT_GE(num_read * kLineBytes, LineWriter::kMaxWaitingBytes - kLineBytes);
  EXPECT_LE(num_read * kLineBytes, LineWriter::kMaxWaitingBytes + LineWriter::kPieceBytes);
  EXPECT_TRUE(writer.Flush(kLong));
}

TEST(LineWriterTest, FlushEndsWhenTheLinesAreTaken) {
  Pipe pipe;
  pipe.Fill();
  LineWriter writer(pipe.writer(), Gap);
  ASSERT_TRUE(writer.Start());
  writer.Write("last words\n");
  EXPECT_FALSE(writer.Flush(kShort));
  bool flushed = false;
  std::thread ending([&] { flushed = writer.Flush(kLong); });
  EXPECT_EQ(pipe.ReadUntil("last words").back(), "last words");
  ending.join();
  EXPECT_TRUE(flushed);
}

TEST(LineWriterTest, LineThatIsLargerThanAPieceComesOutWhole) {
  Pipe pipe;
  LineWriter writer(pipe.writer(), Gap);
  ASSERT_TRUE(writer.Start());
  const std::string large = Line(1, LineWriter::kMaxWaitingBytes - 1);
  std::thread logging([&] {
    writer.Write(large + "\n");
    EXPECT_TRUE(writer.Flush(kLong));
    writer.Write("end\n");
  });
  EXPECT_EQ(pipe.ReadUntil("end"), (std::vector<std::string>{large, "end"}));
  logging.join();
}

TEST(LineWriterTest, LineThatIsLargerThanWhatMayWaitIsDropped) {
  Pipe pipe;
  LineWriter writer(pipe.writer(), Gap);
  ASSERT_TRUE(writer.Start());
  writer.Write(Line(1, LineWriter::kMaxWaitingBytes + 1) + "\n");
  // The gap is told though no line comes after it.
  EXPECT_EQ(pipe.ReadUntil("gap 1"), (std::vector<std::string>{"gap 1"}));
  EXPECT_EQ(writer.num_dropped(), 1);
  EXPECT_TRUE(writer.Flush(kLong));
}

TEST(LineWriterTest, SeveralWritersOfAPipeDoNotTearEachOthersLines) {
  constexpr int kNumLines = 2000;
  Pipe pipe;
  LineWriter a(pipe.writer(), Gap);
  LineWriter b(pipe.writer(), Gap);
  ASSERT_TRUE(a.Start() && b.Start());
  std::thread logging([&] {
    for (int i = 0; i < kNumLines; ++i) {
      a.Write(std::string(59, 'a') + "\n");
      b.Write(std::string(69, 'b') + "\n");
    }
    EXPECT_TRUE(a.Flush(kLong) && b.Flush(kLong));
    a.Write("end\n");
  });
  const std::vector<std::string> lines = pipe.ReadUntil("end");
  logging.join();
  EXPECT_EQ(std::count(lines.begin(), lines.end(), std::string(59, 'a')), kNumLines);
  EXPECT_EQ(std::count(lines.begin(), lines.end(), std::string(69, 'b')), kNumLines);
}

TEST(LineWriterTest, PipeThatAnotherProcessMadeNonBlockingLosesNothing) {
  Pipe pipe;
  ASSERT_EQ(::fcntl(pipe.writer(), F_SETFL, O_NONBLOCK), 0);
  pipe.Fill();
  LineWriter writer(pipe.writer(), Gap);
  ASSERT_TRUE(writer.Start());
  // It goes into the pipe in parts.
  const std::string large = Line(1, 5 * kPipeBytes);
  writer.Write(large + "\n");
  EXPECT_FALSE(writer.Flush(kShort));
  EXPECT_EQ(pipe.ReadUntil(large).back(), large);
  EXPECT_EQ(writer.num_dropped(), 0);
}

TEST(LineWriterTest, LinesForAReaderThatIsGoneAreDropped) {
  Pipe pipe;
  pipe.CloseReader();
  LineWriter writer(pipe.writer(), Gap);
  ASSERT_TRUE(writer.Start());
  for (int i = 0; i < 3; ++i) {
    writer.Write("a\n");
    EXPECT_TRUE(writer.Flush(kLong));
  }
  EXPECT_EQ(writer.num_dropped(), 3);
}

TEST(LineWriterTest, SignalsOfTheCallerStayAsTheyWere) {
  Pipe pipe;
  LineWriter writer(pipe.writer(), Gap);
  sigset_t one;
  sigset_t after;
  ::sigemptyset(&one);
  ::sigaddset(&one, SIGUSR1);
  ASSERT_EQ(::pthread_sigmask(SIG_SETMASK, &one, nullptr), 0);
  ASSERT_TRUE(writer.Start());
  ::sigemptyset(&one);
  ASSERT_EQ(::pthread_sigmask(SIG_SETMASK, &one, &after), 0);
  EXPECT_EQ(::sigismember(&after, SIGUSR1), 1);
  EXPECT_EQ(::sigismember(&after, SIGTERM), 0);
}

TEST(LineWriterTest, LinesForAFullDiskAreDropped) {
  const int full = ::open("/dev/full", O_WRONLY | O_CLOEXEC);
  ASSERT_GE(full, 0);
  LineWriter writer(full, Gap);
  writer.Write("a\n");
  EXPECT_EQ(writer.num_dropped(), 1);
  ASSERT_TRUE(writer.Start());
  writer.Write("a\n");
  EXPECT_TRUE(writer.Flush(kLong));
  EXPECT_EQ(writer.num_dropped(), 2);
  ::close(full);
}

TEST(LineWriterTest, FlushOfASignalHandlerWaitsForTheLinesButNotForEver) {
  Pipe pipe;
  pipe.Fill();
  LineWriter writer(pipe.writer(), Gap);
  ASSERT_TRUE(writer.Start());
  writer.Write("last words\n");
  writer.FlushInSignalHandler(kShort);
  std::thread ending([&] {
    writer.FlushInSignalHandler(kLong);
    // It was read by then.
    EXPECT_TRUE(writer.Flush(std::chrono::nanoseconds(0)));
  });
  EXPECT_EQ(pipe.ReadUntil("last words").back(), "last words");
  ending.join();
}

}  // namespace
}  // namespace swiglu::logging
