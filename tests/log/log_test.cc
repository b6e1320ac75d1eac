// SPDX-License-Identifier: Apache-2.0
//
// The log: levels, both formats, what is escaped, the rate limit and CHECK.
#include "server/log/log.h"

#include <fcntl.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <regex>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/string_view.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace swiglu::logging {
namespace {

using std::chrono::seconds;

// Captures stderr, and leaves the log as it is at start.
class LogTest : public testing::Test {
 protected:
  void TearDown() override {
    SetLevel("info");
    SetFormat("text");
  }

  template <typename Function>
  static std::string Logged(Function function) {
    testing::internal::CaptureStderr();
    function();
    return testing::internal::GetCapturedStderr();
  }

  // What follows the timestamp.
  static std::string WithoutTime(const std::string& line) {
    return line.size() < 25 ? line : line.substr(25);
  }
};

TEST_F(LogTest, TextLineHasTimeLevelAndMessage) {
  const std::string line = Logged([] { LOG(INFO, "listening on {}:{}", "localhost", 8001); });
  EXPECT_TRUE(std::regex_match(
      line,
      std::regex(
          "\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\d\\.\\d{3}Z I listening on localhost:8001\n")))
      << line;
}

TEST_F(LogTest, TimeIsThatOfTheClock) {
  const auto now_ms = [] {
    return std::chrono::floor<std::chrono::milliseconds>(
               std::chrono::system_clock::now().time_since_epoch())
        .count();
  };
  // With all its digits.
  while (now_ms() % 1000 < 100) {
  }
  const int64_t before_ms = now_ms();
  const std::string line = Logged([] { LOG(INFO, "now"); });
  const int64_t after_ms = now_ms();
  std::tm utc{};
  int ms = 0;
  ASSERT_EQ(std::sscanf(line.c_str(), "%d-%d-%dT%d:%d:%d.%dZ", &utc.tm_year, &utc.tm_mon,
                        &utc.tm_mday, &utc.tm_hour, &utc.tm_min, &utc.tm_sec, &ms),
            7)
      << line;
  utc.tm_year -= 1900;
  utc.tm_mon -= 1;
  const int64_t logged_ms = int64_t{timegm(&utc)} * 1000 + ms;
  EXPECT_LE(before_ms, logged_ms);
  EXPECT_LE(logged_ms, after_ms);
}

TEST_F(LogTest, EveryLevelHasItsLetter) {
  SetLevel("debug");
  EXPECT_EQ(WithoutTime(Logged([] { LOG(DEBUG, "a"); })), "D a\n");
  EXPECT_EQ(WithoutTime(Logged([] { LOG(INFO, "a"); })), "I a\n");
  EXPECT_EQ(WithoutTime(Logged([] { LOG(WARNING, "a"); })), "W a\n");
  EXPECT_EQ(WithoutTime(Logged([] { LOG(ERROR, "a"); })), "E a\n");
}

TEST_F(LogTest, LinesBelowTheLevelAreDroppedAndNotEvaluated) {
  int evaluated = 0;
  EXPECT_EQ(Logged([&] { LOG(DEBUG, "{}", ++evaluated); }), "");
  EXPECT_TRUE(SetLevel("error"));
  EXPECT_EQ(Logged([&] { LOG(WARNING, "{}", ++evaluated); }), "");
  EXPECT_EQ(evaluated, 0);
  EXPECT_EQ(WithoutTime(Logged([&] { LOG(ERROR, "{}", ++evaluated); })), "E 1\n");
}

TEST_F(LogTest, UnknownLevelsAndFormatsAreRefused) {
  EXPECT_FALSE(SetLevel("INFO"));
  EXPECT_FALSE(SetLevel(""));
  EXPECT_FALSE(SetFormat("xml"));
  EXPECT_TRUE(Enabled(Level::kInfo));
  EXPECT_FALSE(Enabled(Level::kDebug));
}

TEST_F(LogTest, StringsOfAllKindsAreTaken) {
  const absl::string_view view = "view";
  const std::string string = "string";
  const char array[] = "array";
  EXPECT_EQ(WithoutTime(Logged([&] {
              LOG(INFO, "{} {:>5} {} {}", string, view, array, std::string_view("std"));
            })),
            "I string  view array std\n");
}

TEST_F(LogTest, MessageInTextStaysOnOneLine) {
  EXPECT_EQ(WithoutTime(Logged([] { LOG(INFO, "{}", "a\nb\r\t\x1b[31m \"q\" \\ \xff \xc3\xbc"); })),
            "I a\\nb\\r\\t\\u001b[31m \"q\" \\ \xEF\xBF\xBD \xc3\xbc\n");
}

TEST_F(LogTest, JsonLineIsOneObjectWithEverythingEscaped) {
  SetFormat("json");
  const std::string line =
      Logged([] { LOG(WARNING, "{}", "say \"hi\" \\ \n\t\r\b\x7f \xff\xc0\xaf \xc3\xbc"); });
  ASSERT_EQ(line.back(), '\n');
  EXPECT_EQ(line.find('\n'), line.size() - 1);
  const nlohmann::json object = nlohmann::json::parse(line);
  EXPECT_EQ(object.size(), 3u);
  EXPECT_EQ(object["level"], "warning");
  EXPECT_EQ(object["msg"],
            "say \"hi\" \\ \n\t\r\b\x7f \xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD \xc3\xbc");
  EXPECT_TRUE(std::regex_match(object["ts"].get<std::string>(),
                               std::regex("\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\d\\.\\d{3}Z")));
}

TEST_F(LogTest, EveryInvalidUtf8FormIsReplaced) {
  SetFormat("json");
  // A lone continuation, overlong forms, a surrogate, past U+10FFFF, cut short.
  for (const char* bytes : {"\x80", "\xc1\x81", "\xe0\x80\x80", "\xed\xa0\x80", "\xf0\x80\x80\x80",
                            "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xe2\x82"}) {
    const std::string line = Logged([&] { LOG(INFO, "{}", bytes); });
    const nlohmann::json object = nlohmann::json::parse(line, nullptr, false);
    ASSERT_FALSE(object.is_discarded()) << line;
    EXPECT_EQ(object["msg"].get<std::string>().substr(0, 3), "\xEF\xBF\xBD");
  }
}

TEST_F(LogTest, FieldsStandBehindTheMessage) {
  const Field fields[] = {{"code", "NOT_FOUND"}, {"left_out", int64_t{7}}, {"id", "a\"b\n"}};
  const auto forge = [&] { LogWithFields(Level::kWarning, "no code=OK, =", {fields, 1}); };
  EXPECT_EQ(WithoutTime(Logged(forge)), "W no code\\u003dOK, \\u003d code=NOT_FOUND\n");
  const auto log = [&] { LogWithFields(Level::kWarning, "not \"served\"", fields); };
  EXPECT_EQ(WithoutTime(Logged(log)), "W not \"served\" code=NOT_FOUND left_out=7 id=a\"b\\n\n");
  SetFormat("json");
  nlohmann::json object = nlohmann::json::parse(Logged(log));
  EXPECT_EQ(object["msg"], "not \"served\"");
  EXPECT_EQ(object["code"], "NOT_FOUND");
  EXPECT_EQ(object["left_out"], 7);
  EXPECT_EQ(object["id"], "a\"b\n");
  SetLevel("error");
  EXPECT_EQ(Logged(log), "");
}

TEST_F(LogTest, EveryControlCharacterIsEscaped) {
  const char* const bytes = "\x01\x1f\x7f\xc2\x80\xc2\x9f";
  EXPECT_EQ(WithoutTime(Logged([&] { LOG(INFO, "{}", bytes); })),
            "I \\u0001\\u001f\\u007f\\u0080\\u009f\n");
  EXPECT_EQ(WithoutTime(Logged([] { LOG(INFO, "\xc2\xa0\xc3\xa9"); })), "I \xc2\xa0\xc3\xa9\n");
}

TEST_F(LogTest, HiddenCharactersAreEscapedInBothFormats) {
  const std::string text = "a\xE2\x80\xAE\xE2\x80\xA8\xE2\x80\x8B\xF3\xA0\xBF\xBF";
  const Field fields[] = {{"id", text}};
  const auto log = [&] { LogWithFields(Level::kInfo, text, fields); };
  EXPECT_EQ(WithoutTime(Logged(log)),
            "I a\\u202e\\u2028\\u200b\\U000e0fff id=a\\u202e\\u2028\\u200b\\U000e0fff\n");
  SetFormat("json");
  const std::string line = Logged(log);
  EXPECT_NE(line.find("\"msg\":\"a\\u202e\\u2028\\u200b\\udb43\\udfff\""), std::string::npos)
      << line;
  const nlohmann::json object = nlohmann::json::parse(line);
  EXPECT_EQ(object["msg"], text);
  EXPECT_EQ(object["id"], text);
}

TEST_F(LogTest, ToggleSwitchesToDebugAndBack) {
  for (const char* level : {"info", "warning", "error"}) {
    SetLevel(level);
    EXPECT_EQ(WithoutTime(Logged([&] { ToggleDebug(level); })), "I log level: debug\n");
    EXPECT_TRUE(Enabled(Level::kDebug));
    EXPECT_EQ(WithoutTime(Logged([&] { ToggleDebug(level); })),
              std::string("I log level: ") + level + "\n");
    EXPECT_FALSE(Enabled(Level::kDebug));
    EXPECT_EQ(Enabled(Level::kWarning), std::string(level) != "error");
  }
}

TEST_F(LogTest, ToggleFromDebugGoesToInfo) {
  SetLevel("debug");
  EXPECT_EQ(WithoutTime(Logged([] { ToggleDebug("debug"); })), "I log level: info\n");
  EXPECT_EQ(WithoutTime(Logged([] { ToggleDebug("debug"); })), "I log level: debug\n");
}

TEST_F(LogTest, MacrosAreSingleStatements) {
  const bool yes = true;
  EXPECT_EQ(WithoutTime(Logged([&] {
              if (yes)
                LOG(INFO, "then");
              else
                LOG(INFO, "else");
            })),
            "I then\n");
}

TEST_F(LogTest, RateLimitLetsOneThroughAndTellsHowManyItHeldBack) {
  std::string last;
  const auto log = [](std::chrono::nanoseconds interval) {
    LOG_EVERY(WARNING, interval, "queue is full: {} requests", 4096);
  };
  EXPECT_EQ(WithoutTime(Logged([&] {
              for (int i = 0; i < 8; ++i) log(std::chrono::hours(1));
            })),
            "W queue is full: 4096 requests\n");
  // The same place in the code, allowed again.
  EXPECT_EQ(WithoutTime(Logged([&] { log(seconds(0)); })),
            "W queue is full: 4096 requests (7 like this suppressed)\n");
  EXPECT_EQ(WithoutTime(Logged([&] { log(seconds(0)); })), "W queue is full: 4096 requests\n");
  EXPECT_EQ(Logged([&] { log(std::chrono::hours(1)); }), "");
  EXPECT_EQ(WithoutTime(Logged([&] { log(seconds(0)); })),
            "W queue is full: 4096 requests (1 like this suppressed)\n");
}

TEST(RateLimiterTest, AdmitsAgainOnceTheIntervalIsOver) {
  const RateLimiter::TimePoint start{seconds(1000)};
  RateLimiter limiter;
  EXPECT_EQ(limiter.Admit(start, seconds(2)), 0);
  EXPECT_EQ(limiter.Admit(start, seconds(2)), -1);
  EXPECT_EQ(limiter.Admit(start + std::chrono::milliseconds(1999), seconds(2)), -1);
  EXPECT_EQ(limiter.Admit(start + seconds(2), seconds(2)), 2);
  EXPECT_EQ(limiter.Admit(start + seconds(3), seconds(2)), -1);
  EXPECT_EQ(limiter.Admit(start + seconds(9), seconds(2)), 1);
}

TEST(RateLimiterTest, WhatWasHeldBackIsToldOnce) {
  const RateLimiter::TimePoint start{seconds(1000)};
  RateLimiter limiter;
  for (int i = 0; i < 4; ++i) limiter.Admit(start, seconds(2));
  EXPECT_EQ(limiter.TakeSuppressed(), 3);
  EXPECT_EQ(limiter.TakeSuppressed(), 0);
  EXPECT_EQ(limiter.Admit(start + seconds(2), seconds(2)), 0);
}

TEST(RateLimiterTest, OfManyThreadsOneIsAdmitted) {
  RateLimiter limiter;
  std::atomic<int> admitted{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 1000; ++i) {
        if (limiter.Admit(RateLimiter::TimePoint(seconds(5)), seconds(1)) >= 0) ++admitted;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(admitted, 1);
  EXPECT_EQ(limiter.Admit(RateLimiter::TimePoint(seconds(6)), seconds(1)), 3999);
}

TEST(BackgroundDeathTest, LastLinesBeforeAnAbortAreWritten) {
  const auto abort = [] {
    if (!WriteInBackground()) return;
    for (int i = 0; i < 200; ++i) LOG(INFO, "line {}", i);
    std::abort();
  };
  EXPECT_EXIT(abort(), testing::KilledBySignal(SIGABRT), "I line 0\n(.*\n)*.*I line 199\n");
}

TEST(BackgroundDeathTest, FailedCheckIsHeard) {
  const auto fail = [] {
    if (WriteInBackground()) CHECK(false);
  };
  EXPECT_EXIT(fail(), testing::KilledBySignal(SIGABRT), "check failed: false");
}

// Ends with 0 if a flush waits for a line that nobody reads, and ends once it is read.
void FlushSlowly() {
  const std::string dots(4096, '.');
  int pipe[2];
  if (::pipe(pipe) != 0 || ::fcntl(pipe[1], F_SETPIPE_SZ, 4096) != 4096) return;
  if (::write(pipe[1], dots.data(), dots.size()) != 4096) return;
  if (::dup2(pipe[1], STDERR_FILENO) < 0 || !WriteInBackground()) return;
  LOG(INFO, "the last");
  if (Flush(std::chrono::milliseconds(1))) return;
  std::string buffer(4096, ' ');
  if (::read(pipe[0], buffer.data(), buffer.size()) != 4096) return;
  std::_Exit(Flush(seconds(60)) ? 0 : 1);
}

TEST(BackgroundDeathTest, FlushWaitsForTheLastLine) {
  EXPECT_EXIT(FlushSlowly(), testing::ExitedWithCode(0), "");
}

// Logs more than may wait to a stderr that nobody reads, then reads it, and ends with the line that
// tells of the gap on the first stderr.
void ShowGap() {
  const int shown = ::dup(STDERR_FILENO);
  int pipe[2];
  if (::pipe(pipe) != 0 || ::dup2(pipe[1], STDERR_FILENO) < 0 || !WriteInBackground()) return;
  for (int i = 0; i < 10'000; ++i)
    LOG(INFO, "line {} of some length, so that they are too much", i);
  LOG(INFO, "the last");
  if (NumDroppedLines() == 0) return;
  std::string received;
  while (received.find("the last") == std::string::npos) {
    char buffer[4096];
    const ssize_t count = ::read(pipe[0], buffer, sizeof(buffer));
    if (count <= 0) return;
    received.append(buffer, static_cast<size_t>(count));
  }
  const size_t gap = received.find("lines of the log dropped");
  if (gap == std::string::npos) return;
  const size_t begin = received.rfind('\n', gap) + 1;
  const std::string line = received.substr(begin, received.find('\n', gap) + 1 - begin);
  std::_Exit(::write(shown, line.data(), line.size()) > 0 ? 0 : 1);
}

TEST(BackgroundDeathTest, GapInTheLogIsAWarning) {
  EXPECT_EXIT(ShowGap(), testing::ExitedWithCode(0),
              "Z W lines of the log dropped: nobody took them dropped=[0-9]+\n");
}

TEST(CheckDeathTest, FailureNamesPlaceAndExpression) {
  CHECK(1 + 1 == 2);
  const int answer = 41;
  EXPECT_DEATH(CHECK(answer == 42), "E log_test.cc:[0-9]+: check failed: answer == 42");
}

TEST(CheckDeathTest, IsHeardAtEveryLevel) {
  SetLevel("error");
  EXPECT_DEATH(CHECK(false), "check failed: false");
  SetLevel("info");
}

}  // namespace
}  // namespace swiglu::logging
