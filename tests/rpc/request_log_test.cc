// SPDX-License-Identifier: Apache-2.0
//
// The lines about requests: what is in them, how few there are in a storm, and that no id can break
// or forge one.
#include "server/service/request_log.h"

#include <chrono>
#include <sstream>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "server/core/model.h"
#include "server/service/trace_context.h"

namespace swiglu::server {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;

// A request at its end, and who sent it.
struct LoggedRequest final : RequestOrigin {
  absl::string_view Metadata(absl::string_view key) const override {
    if (key == kTraceParentMetadata) return trace_parent;
    return key == kRequestIdMetadata ? metadata_id : "";
  }
  std::string DescribePeer() const override { return peer; }

  absl::string_view id;
  absl::string_view metadata_id;
  absl::string_view trace_parent;
  std::string peer;
  const Model* model = nullptr;
  Clock::time_point started;
  Clock::time_point ended;
};

void Write(RequestLog& log, const absl::Status& status, const LoggedRequest& request) {
  RequestRecord record;
  record.status = status;
  record.model = request.model;
  record.started = request.started;
  record.ended = request.ended;
  record.id = request.id;
  record.origin = &request;
  log.RequestFinished(record);
}

class RequestLogTest : public testing::Test {
 protected:
  ~RequestLogTest() override {
    logging::SetLevel("info");
    logging::SetFormat("text");
  }

  // The lines that `function` logs, without their time.
  template <typename Function>
  static std::vector<std::string> Logged(Function function) {
    testing::internal::CaptureStderr();
    function();
    std::istringstream text(testing::internal::GetCapturedStderr());
    std::vector<std::string> lines;
    for (std::string line; std::getline(text, line);) {
      lines.push_back(line[0] == '{' ? line : line.substr(25));
    }
    return lines;
  }
  // A request that took 1500 us and ended at `ms` on the test's clock.
  static LoggedRequest EndedAt(int64_t ms) {
    LoggedRequest request;
    request.ended = Clock::time_point(milliseconds(1'000'000 + ms));
    request.started = request.ended - microseconds(1500);
    return request;
  }

  RequestLog log_;
};

using Lines = std::vector<std::string>;

TEST_F(RequestLogTest, SaysWhatTheCallerWasToldAndWhichRequestItWas) {
  LoggedRequest request = EndedAt(0);
  request.id = "42";
  request.metadata_id = "c0ffee";
  request.model = &GetModel(Op::kBackward, Dtype::kBf16);
  EXPECT_EQ(
      Logged([&] { Write(log_, absl::InvalidArgumentError("input 'e' is missing"), request); }),
      Lines{"W request not served: input 'e' is missing code=INVALID_ARGUMENT "
            "model=swiglu_backward_bf16 id=42 x_request_id=c0ffee us=1500"});
}

TEST_F(RequestLogTest, NamesTheCallersTrace) {
  LoggedRequest request = EndedAt(0);
  request.metadata_id = "c0ffee";
  request.trace_parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
  request.peer = "ipv4:10.0.0.1:1234";
  EXPECT_EQ(Logged([&] { Write(log_, absl::NotFoundError("unknown model 'x'"), request); }),
            Lines{"W request not served: unknown model 'x' code=NOT_FOUND x_request_id=c0ffee "
                  "trace_id=4bf92f3577b34da6a3ce929d0e0e4736 peer=ipv4:10.0.0.1:1234 us=1500"});
}

TEST_F(RequestLogTest, IgnoresAMalformedTrace) {
  LoggedRequest request = EndedAt(0);
  request.trace_parent = "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01";
  EXPECT_EQ(Logged([&] { Write(log_, absl::NotFoundError("unknown model 'x'"), request); }),
            Lines{"W request not served: unknown model 'x' code=NOT_FOUND us=1500"});
}

TEST_F(RequestLogTest, LeavesOutWhatIsNotKnown) {
  EXPECT_EQ(Logged([&] { Write(log_, absl::NotFoundError("unknown model 'x'"), EndedAt(0)); }),
            Lines{"W request not served: unknown model 'x' code=NOT_FOUND us=1500"});
}

TEST_F(RequestLogTest, NamesTheCallersAddress) {
  LoggedRequest request = EndedAt(0);
  request.id = "42";
  request.peer = "ipv4:10.0.0.1:1234";
  EXPECT_EQ(Logged([&] { Write(log_, absl::NotFoundError("unknown model 'x'"), request); }),
            Lines{"W request not served: unknown model 'x' code=NOT_FOUND id=42 "
                  "peer=ipv4:10.0.0.1:1234 us=1500"});
}

TEST_F(RequestLogTest, KeepsTheCallersAddressToItselfIfItMayNotBeLogged) {
  LoggedRequest request = EndedAt(0);
  request.peer = "ipv4:10.0.0.1:1234";
  RequestLog log({.with_peers = false});
  EXPECT_EQ(Logged([&] { Write(log, absl::NotFoundError("unknown model 'x'"), request); }),
            Lines{"W request not served: unknown model 'x' code=NOT_FOUND us=1500"});
}

// A peer on a unix socket may have bound its own to any path.
TEST_F(RequestLogTest, CleansTheCallersAddress) {
  LoggedRequest request = EndedAt(0);
  request.peer = "unix:/tmp/a b=\"1\"\n" + std::string(100, 'x');
  EXPECT_EQ(Logged([&] { Write(log_, absl::NotFoundError("no"), request); }),
            Lines{"W request not served: no code=NOT_FOUND peer=unix:/tmp/a_b=_1__" +
                  std::string(46, 'x') + "... us=1500"});
}

TEST_F(RequestLogTest, IsOneObjectInJson) {
  logging::SetFormat("json");
  LoggedRequest request = EndedAt(0);
  request.id = "42";
  const Lines lines = Logged([&] { Write(log_, absl::InternalError("device 0 failed"), request); });
  ASSERT_EQ(lines.size(), 1u);
  nlohmann::json object = nlohmann::json::parse(lines[0]);
  EXPECT_TRUE(object.contains("ts"));
  object.erase("ts");
  EXPECT_EQ(object, (nlohmann::json{{"level", "error"},
                                    {"msg", "request not served: device 0 failed"},
                                    {"code", "INTERNAL"},
                                    {"id", "42"},
                                    {"us", 1500}}));
}

TEST_F(RequestLogTest, LevelsFollowTheCode) {
  const auto letter = [](const absl::Status& status) {
    RequestLog log;
    const Lines lines = Logged([&] { Write(log, status, EndedAt(0)); });
    return lines.empty() ? ' ' : lines[0][0];
  };
  EXPECT_EQ(letter(absl::InternalError("")), 'E');
  EXPECT_EQ(letter(absl::UnavailableError("")), 'W');
  EXPECT_EQ(letter(absl::ResourceExhaustedError("")), 'W');
  EXPECT_EQ(letter(absl::CancelledError("")), 'I');
  EXPECT_EQ(letter(absl::OkStatus()), ' ');
  logging::SetLevel("debug");
  EXPECT_EQ(letter(absl::OkStatus()), 'D');
  logging::SetLevel("error");
  EXPECT_EQ(letter(absl::UnavailableError("")), ' ');
}

TEST_F(RequestLogTest, AStormIsALineEachIntervalThatCountsTheRest) {
  const absl::Status full = absl::UnavailableError("queue is full: 4096 requests");
  const Lines lines = Logged([&] {
    for (int i = 0; i < 100'000; ++i) Write(log_, full, EndedAt(i / 1000));
    Write(log_, full, EndedAt(100));
  });
  EXPECT_EQ(lines, (Lines{"W request not served: queue is full: 4096 requests code=UNAVAILABLE "
                          "us=1500",
                          "W request not served: queue is full: 4096 requests code=UNAVAILABLE "
                          "us=1500 left_out=99999"}));
}

TEST_F(RequestLogTest, AStormOfOneCodeHidesNoOther) {
  const Lines lines = Logged([&] {
    for (int i = 0; i < 10; ++i) Write(log_, absl::UnavailableError("full"), EndedAt(0));
    Write(log_, absl::InternalError("device 0 failed"), EndedAt(0));
  });
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[1], "E request not served: device 0 failed code=INTERNAL us=1500");
}

TEST_F(RequestLogTest, FlushSaysWhatNoLineHasSaidAndSaysItOnce) {
  EXPECT_EQ(Logged([&] { log_.Flush(); }), Lines());
  EXPECT_EQ(Logged([&] {
              for (int i = 0; i < 4; ++i) Write(log_, absl::UnavailableError("full"), EndedAt(0));
              log_.Flush();
              log_.Flush();
              Write(log_, absl::UnavailableError("full"), EndedAt(100));
            }),
            (Lines{"W request not served: full code=UNAVAILABLE us=1500",
                   "W lines about requests left out code=UNAVAILABLE left_out=3",
                   "W request not served: full code=UNAVAILABLE us=1500"}));
}

TEST(CleanRequestIdTest, KeepsOrdinaryIds) {
  for (const char* id : {"", "1", "4bf92f35-77b3-4da6-a3ce-929d0e0e4736", "a:b/c+d=e@f.g_h",
                         "'#$%&()*,;<>?[]^`{|}~!"}) {
    EXPECT_EQ(CleanRequestId(id), id);
  }
}

TEST(CleanRequestIdTest, ReplacesWhatCouldBreakALineOrForgeAField) {
  EXPECT_EQ(CleanRequestId("a\nb\rc\td\x1b[31me\x7f"), "a_b_c_d_[31me_");
  EXPECT_EQ(CleanRequestId(absl::string_view("a\0b", 3)), "a_b");
  EXPECT_EQ(CleanRequestId("1 code=OK"), "1_code=OK");
  EXPECT_EQ(CleanRequestId("1\",\"code\":\"OK"), "1_,_code_:_OK");
  EXPECT_EQ(CleanRequestId("a\\u000a"), "a_u000a");
  EXPECT_EQ(CleanRequestId("\xC3\xA9\xFF"), "___");
}

TEST(CleanRequestIdTest, CutsLongIds) {
  EXPECT_EQ(CleanRequestId(std::string(64, 'a')), std::string(64, 'a'));
  EXPECT_EQ(CleanRequestId(std::string(65, 'a')), std::string(64, 'a') + "...");
  EXPECT_EQ(CleanRequestId(std::string(1 << 20, '\n')).size(), 67u);
}

// Through the log itself, in both formats.
TEST_F(RequestLogTest, NoIdBreaksALine) {
  for (const char* format : {"text", "json"}) {
    logging::SetFormat(format);
    for (int c = 0; c < 256; ++c) {
      RequestLog log;
      const std::string id = std::string("x") + static_cast<char>(c) + "\",\"code\":\"OK\" code=OK";
      LoggedRequest request = EndedAt(0);
      request.id = id;
      request.metadata_id = id;
      const Lines lines = Logged([&] { Write(log, absl::NotFoundError(id), request); });
      ASSERT_EQ(lines.size(), 1u) << "byte " << c;
      if (format[0] == 't') continue;
      const nlohmann::json object = nlohmann::json::parse(lines[0], nullptr, false);
      ASSERT_FALSE(object.is_discarded()) << lines[0];
      EXPECT_EQ(object["code"], "NOT_FOUND");
      EXPECT_EQ(object["id"], CleanRequestId(id));
    }
  }
}

}  // namespace
}  // namespace swiglu::server
