// SPDX-License-Identifier: Apache-2.0
//
// Every form of call, against connections that break, and peers that speak HTTP/2 wrongly or do not
// speak it.
#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <tuple>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "swiglu/client.h"
#include "tests/client/call_forms.h"
#include "tests/client/client_fixture.h"
#include "tests/client/fake_server.h"
#include "tests/client/http2_peer.h"
#include "tests/client/silent_peer.h"

namespace swiglu::client {
namespace {

using ::testing::Combine;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::StartsWith;
using ::testing::TestWithParam;
using ::testing::ValuesIn;

using Replies = std::function<std::string(const PeerRequest&)>;

constexpr int64_t kRows = 2;

// The message of the right answer.
std::string RightMessage(const PeerRequest& arrived) {
  inference::ModelInferRequest request;
  EXPECT_TRUE(request.ParseFromString(std::string(arrived.message())));
  return FlipInfer(request).SerializeAsString();
}

std::string RightAnswer(const PeerRequest& arrived) {
  return AnswerFrames(arrived.stream, RightMessage(arrived));
}

// The headers of an answer, and a message after a prefix that is `too_many` bytes off.
std::string BeginOfAnswer(const PeerRequest& arrived, const std::string& message,
                          int64_t too_many = 0) {
  const size_t size = message.size() + static_cast<size_t>(too_many);
  return AnswerHeaders(arrived.stream) + DataFrames(arrived.stream, MessagePrefix(size) + message);
}

// The right answer without its second half and without its end.
std::string HalfAnswer(const PeerRequest& arrived) {
  const std::string message = RightMessage(arrived);
  const size_t half = message.size() / 2;
  return BeginOfAnswer(arrived, message.substr(0, half),
                       static_cast<int64_t>(message.size() - half));
}

PeerConnection Answering() { return {.turns = {{.reply = RightAnswer}}}; }

// A client with one connection to each server.
std::unique_ptr<Client> ConnectOnce(const std::string& address, Options options = {}) {
  options.num_connections = 1;
  return Connect(address, options);
}

// What a peer does to a request.
struct Fault {
  const char* name;
  Turn turn;
  absl::StatusCode code = absl::StatusCode::kUnavailable;  // what the call makes of it
};

void PrintTo(const Fault& fault, std::ostream* out) { *out << fault.name; }

class FaultTest : public TestWithParam<std::tuple<Form, Fault>> {
 protected:
  absl::Status Call(Client& client) { return form_.call(client, kRows, {}); }

  const Form form_ = std::get<0>(GetParam());
  const Fault fault_ = std::get<1>(GetParam());
};

std::string FaultTestName(const testing::TestParamInfo<FaultTest::ParamType>& info) {
  return absl::StrCat(std::get<0>(info.param).name, std::get<1>(info.param).name);
}

// ---- Connections that break under a request ----

const Fault kLostConnections[] = {
    {"ClosedAtHeaders", {.then = Then::kClose, .after_bytes = 0}},
    {"ClosedInRequest", {.then = Then::kClose, .after_bytes = 100}},
    {"ClosedAfterRequest", {.then = Then::kClose}},
    {"HalfClosedInRequest", {.then = Then::kHalfClose, .after_bytes = 100}},
    {"HalfClosedAfterRequest", {.then = Then::kHalfClose}},
    {"ClosedAfterAnswersHeaders",
     {.reply = [](const PeerRequest& arrived) { return AnswerHeaders(arrived.stream); },
      .then = Then::kClose}},
    {"ClosedInAnswer", {.reply = HalfAnswer, .then = Then::kClose}},
    {"HalfClosedInFrame",
     {.reply =
          [](const PeerRequest& arrived) {
            const std::string frames = HalfAnswer(arrived);
            return frames.substr(0, frames.size() - 20);
          },
      .then = Then::kHalfClose}},
    {"HalfClosedBeforeTrailers",
     {.reply =
          [](const PeerRequest& arrived) { return BeginOfAnswer(arrived, RightMessage(arrived)); },
      .then = Then::kHalfClose}},
    {"GoAwayWithoutTheRequest",
     {.reply = [](const PeerRequest&) { return GoAwayFrame(0, Http2Error::kNone); }}},
    {"GoAwayInRequest",
     {.reply = [](const PeerRequest&) { return GoAwayFrame(0, Http2Error::kEnhanceYourCalm); },
      .then = Then::kClose,
      .after_bytes = 100}},
    {"GoAwayWithTheRequestThenClosed",
     {.reply =
          [](const PeerRequest& arrived) { return GoAwayFrame(arrived.stream, Http2Error::kNone); },
      .then = Then::kHalfClose}},
};

class LostConnectionTest : public FaultTest {};

// Without a budget: a call that has another server to go to needs none, and waits for nothing. The
// first calls may go to the other server, which may be connected earlier.
TEST_P(LostConnectionTest, BringsTheRequestToTheOtherServer) {
  Http2Peer breaks({{.turns = {fault_.turn}}}), answers({Answering()});
  const auto client =
      ConnectOnce(absl::StrCat(breaks.address(), ",", answers.address()), {.retry_budget = 0});
  int num_calls = 0;
  for (; breaks.num_requests() == 0; ++num_calls) ASSERT_EQ(Call(*client), absl::OkStatus());
  EXPECT_EQ(answers.num_requests(), num_calls);
}

TEST_P(LostConnectionTest, IsUnavailableInTheEndAndNamesItsServer) {
  Http2Peer peer({{.turns = {fault_.turn}}});
  const absl::Status status = Call(*ConnectOnce(peer.address(), {.max_attempts = 1}));
  EXPECT_EQ(status.code(), fault_.code);
  EXPECT_THAT(std::string(status.message()), HasSubstr(peer.address()));
  EXPECT_EQ(peer.num_requests(), 1);
}

INSTANTIATE_TEST_SUITE_P(EveryForm, LostConnectionTest,
                         Combine(ValuesIn(Forms()), ValuesIn(kLostConnections)), FaultTestName);

// ---- Requests that fail while their connection lives on ----

Replies Resets(Http2Error error) {
  return [=](const PeerRequest& arrived) { return ResetFrame(arrived.stream, error); };
}

Replies ResetsInAnswer(Http2Error error) {
  return [=](const PeerRequest& arrived) {
    return HalfAnswer(arrived) + ResetFrame(arrived.stream, error);
  };
}

Replies EndsWithStatus(const std::string& grpc_status) {
  return [=](const PeerRequest& arrived) {
    return AnswerHeaders(arrived.stream) + Trailers(arrived.stream, grpc_status);
  };
}

// What a proxy answers that has no server, or knows none.
Replies AnswersAsAProxy(const std::string& http_status) {
  return [=](const PeerRequest& arrived) {
    return HeadersFrame(arrived.stream, {{":status", http_status}, {"content-type", "text/html"}}) +
           DataFrames(arrived.stream, "<html></html>", StreamEnd::kHere);
  };
}

const Fault kRetriedFaults[] = {
    // gRPC says the same of a connection that ends too early.
    {"NoTrailers",
     {.reply =
          [](const PeerRequest& arrived) {
            return BeginOfAnswer(arrived, RightMessage(arrived)) +
                   DataFrames(arrived.stream, "", StreamEnd::kHere);
          }}},
    {"Http200", {.reply = AnswersAsAProxy("200")}},
    {"RefusedStream", {.reply = Resets(Http2Error::kRefusedStream), .after_bytes = 0}},
    {"Http503", {.reply = AnswersAsAProxy("503")}},
};

class RetriedFaultTest : public FaultTest {};

TEST_P(RetriedFaultTest, IsRetriedOnTheSameConnection) {
  Http2Peer peer({{.turns = {fault_.turn, {.reply = RightAnswer}}}});
  EXPECT_EQ(Call(*ConnectOnce(peer.address())), absl::OkStatus());
  EXPECT_EQ(peer.num_connections(), 1);
  EXPECT_EQ(peer.num_requests(), 2);
}

TEST_P(RetriedFaultTest, IsUnavailableInTheEndAndNamesItsServer) {
  Http2Peer peer({{.turns = {fault_.turn}}});
  const absl::Status status = Call(*ConnectOnce(peer.address(), {.max_attempts = 1}));
  EXPECT_EQ(status.code(), fault_.code);
  EXPECT_THAT(std::string(status.message()), HasSubstr(peer.address()));
}

INSTANTIATE_TEST_SUITE_P(EveryForm, RetriedFaultTest,
                         Combine(ValuesIn(Forms()), ValuesIn(kRetriedFaults)), FaultTestName);

// The largest number that gRPC's enumeration of codes can hold. With a larger one, gRPC's headers
// have undefined behavior, and UBSan ends the program.
constexpr char kUnknownStatus[] = "31";

const Fault kFinalFaults[] = {
    {"ResetWithoutError", {.reply = Resets(Http2Error::kNone)}, absl::StatusCode::kInternal},
    {"ResetAsInternal", {.reply = Resets(Http2Error::kInternal)}, absl::StatusCode::kInternal},
    {"ResetInRequest",
     {.reply = Resets(Http2Error::kInternal), .after_bytes = 100},
     absl::StatusCode::kInternal},
    {"ResetInAnswer",
     {.reply = ResetsInAnswer(Http2Error::kInternal)},
     absl::StatusCode::kInternal},
    {"ResetAsCancelled", {.reply = Resets(Http2Error::kCancel)}, absl::StatusCode::kCancelled},
    {"ResetToCalm",
     {.reply = Resets(Http2Error::kEnhanceYourCalm)},
     absl::StatusCode::kResourceExhausted},
    {"NoMessage", {.reply = EndsWithStatus("0")}, absl::StatusCode::kInternal},
    {"UnknownStatus", {.reply = EndsWithStatus(kUnknownStatus)}, absl::StatusCode::kUnknown},
    {"StatusThatIsNoNumber", {.reply = EndsWithStatus("x")}, absl::StatusCode::kUnknown},
    {"UnknownStatusAfterAMessage",
     {.reply =
          [](const PeerRequest& arrived) {
            return BeginOfAnswer(arrived, RightMessage(arrived)) +
                   Trailers(arrived.stream, kUnknownStatus);
          }},
     absl::StatusCode::kUnknown},
    {"NoStatus",
     {.reply =
          [](const PeerRequest& arrived) {
            return BeginOfAnswer(arrived, RightMessage(arrived)) +
                   HeadersFrame(arrived.stream, {{"trailer", "x"}}, StreamEnd::kHere);
          }},
     absl::StatusCode::kUnknown},
    {"PrefixAnnouncesMore",
     {.reply =
          [](const PeerRequest& arrived) {
            return BeginOfAnswer(arrived, RightMessage(arrived), /*too_many=*/1) +
                   Trailers(arrived.stream, "0");
          }},
     absl::StatusCode::kInternal},
    {"PrefixAnnounces4GiB",
     {.reply =
          [](const PeerRequest& arrived) {
            return BeginOfAnswer(arrived, "", /*too_many=*/0xffffffff) +
                   Trailers(arrived.stream, "0");
          }},
     absl::StatusCode::kInternal},
    {"HalfAPrefix",
     {.reply =
          [](const PeerRequest& arrived) {
            return AnswerHeaders(arrived.stream) +
                   DataFrames(arrived.stream, MessagePrefix(0).substr(0, 3)) +
                   Trailers(arrived.stream, "0");
          }},
     absl::StatusCode::kInternal},
    {"Http404", {.reply = AnswersAsAProxy("404")}, absl::StatusCode::kUnimplemented},
    {"Http500", {.reply = AnswersAsAProxy("500")}, absl::StatusCode::kUnknown},
};

class FinalFaultTest : public FaultTest {};

TEST_P(FinalFaultTest, IsNotRetriedAndHarmsNoOtherCall) {
  Http2Peer peer({{.turns = {fault_.turn, {.reply = RightAnswer}}}});
  const auto client = ConnectOnce(peer.address());
  const absl::Status status = Call(*client);
  // As a number, too: one that no code has is not passed on.
  EXPECT_EQ(status.raw_code(), static_cast<int>(fault_.code));
  EXPECT_THAT(std::string(status.message()), HasSubstr(peer.address()));
  EXPECT_EQ(peer.num_requests(), 1);
  EXPECT_EQ(Call(*client), absl::OkStatus());
  EXPECT_EQ(peer.num_connections(), 1);
}

INSTANTIATE_TEST_SUITE_P(EveryForm, FinalFaultTest,
                         Combine(ValuesIn(Forms()), ValuesIn(kFinalFaults)), FaultTestName);

// ---- Everything else ----

class BrokenPeersTest : public TestWithParam<Form> {
 protected:
  absl::Status Call(Client& client, int64_t num_rows = kRows, absl::Duration timeout = kPatience) {
    CallOptions options;
    options.timeout = timeout;
    return form().call(client, num_rows, options);
  }
  const Form& form() const { return GetParam(); }

  static constexpr absl::Duration kPatience = absl::Seconds(60);
};

TEST_P(BrokenPeersTest, APeerThatAnswersIsAServer) {
  Http2Peer peer({Answering()});
  const auto client = ConnectOnce(peer.address());
  for (int i = 0; i < 3; ++i) EXPECT_EQ(Call(*client), absl::OkStatus());
  EXPECT_EQ(peer.num_connections(), 1);
  EXPECT_EQ(peer.num_requests(), 3);
}

TEST_P(BrokenPeersTest, ALostConnectionIsReplaced) {
  const Turn lost[] = {
      {.then = Then::kClose},
      {.reply = HalfAnswer, .then = Then::kHalfClose},
      {.reply = [](const PeerRequest&) { return GoAwayFrame(0, Http2Error::kNone); }}};
  for (const Turn& turn : lost) {
    Http2Peer peer({{.turns = {turn}}, Answering()});
    EXPECT_EQ(Call(*ConnectOnce(peer.address())), absl::OkStatus());
    EXPECT_EQ(peer.num_connections(), 2);
    EXPECT_EQ(peer.num_requests(), 2);
  }
}

TEST_P(BrokenPeersTest, ANoticeToLeaveDoesNotHarmTheRequestThatItIncludes) {
  Http2Peer peer({{.turns = {{.reply =
                                  [](const PeerRequest& arrived) {
                                    return GoAwayFrame(arrived.stream, Http2Error::kNone) +
                                           RightAnswer(arrived);
                                  },
                              .then = Then::kHalfClose}}},
                  Answering()});
  const auto client = ConnectOnce(peer.address());
  EXPECT_EQ(Call(*client), absl::OkStatus());
  EXPECT_EQ(peer.num_connections(), 1);
  EXPECT_EQ(Call(*client), absl::OkStatus());
  EXPECT_EQ(peer.num_connections(), 2);
}

TEST_P(BrokenPeersTest, ANoticeToLeaveBetweenCallsHarmsNone) {
  Http2Peer peer({{.turns = {{.reply =
                                  [](const PeerRequest& arrived) {
                                    return RightAnswer(arrived) +
                                           GoAwayFrame(arrived.stream, Http2Error::kNone);
                                  },
                              .then = Then::kHalfClose}}},
                  Answering()});
  const auto client = ConnectOnce(peer.address());
  EXPECT_EQ(Call(*client), absl::OkStatus());
  EXPECT_EQ(Call(*client), absl::OkStatus());
  EXPECT_EQ(peer.num_connections(), 2);
}

TEST_P(BrokenPeersTest, ANoticeToLeaveBeforeTheFirstRequestHarmsNone) {
  Http2Peer peer({{.greeting = GreetingFrames() + GoAwayFrame(0, Http2Error::kNone),
                   .after_greeting = Then::kHalfClose},
                  Answering()});
  EXPECT_EQ(Call(*ConnectOnce(peer.address())), absl::OkStatus());
  EXPECT_EQ(peer.num_connections(), 2);
}

TEST_P(BrokenPeersTest, APeerThatNeverAnswersIsLate) {
  const PeerConnection silent[] = {
      {.greeting = ""}, {.turns = {}}, {.turns = {{.reply = HalfAnswer}}}};
  for (const PeerConnection& connection : silent) {
    Http2Peer peer({connection});
    EXPECT_EQ(Call(*ConnectOnce(peer.address()), kRows, absl::Milliseconds(10)),
              absl::DeadlineExceededError(
                  absl::StrCat("no answer from ", peer.address(), " within 10ms")));
  }
}

TEST_P(BrokenPeersTest, WhatDoesNotSpeakHttp2IsNoServer) {
  const PeerConnection strangers[] = {
      {.greeting = "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"},
      {.greeting = "SSH-2.0-OpenSSH_9.2p1\r\n"},
      {.greeting = std::string(100, '\xff')},
      {.greeting = "", .after_greeting = Then::kHalfClose},
      {.greeting = "", .after_greeting = Then::kClose}};
  for (const PeerConnection& connection : strangers) {
    Http2Peer peer({connection});
    const absl::Status status = Call(*ConnectOnce(peer.address(), {.max_attempts = 1}));
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
    EXPECT_THAT(std::string(status.message()),
                StartsWith(absl::StrCat("no connection to ", peer.address(), ": ")));
    EXPECT_EQ(peer.num_requests(), 0);
  }
}

TEST_P(BrokenPeersTest, APortWhereNobodyListensIsNamed) {
  const Port port;
  const absl::Status status = Call(*ConnectOnce(port.address(), {.max_attempts = 1}));
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()),
              StartsWith(absl::StrCat("no connection to ", port.address(), ": ")));
}

TEST_P(BrokenPeersTest, AServerThatIsGoneForGoodIsUnavailable) {
  Http2Peer peer({{.turns = {{.then = Then::kClose}}, .is_last = true}});
  const absl::Status status = Call(*ConnectOnce(peer.address(), {.max_attempts = 2}));
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), EndsWith(" (tried 2 times)"));
  EXPECT_EQ(peer.num_connections(), 1);
}

// The call may end before the state of the channel says that its connection is gone.
TEST_P(BrokenPeersTest, AConnectionThatIsClosedAtOnceIsNamed) {
  for (int i = 0; i < 10; ++i) {
    Http2Peer peer({{.after_greeting = Then::kHalfClose}});
    const absl::Status status = Call(*ConnectOnce(peer.address(), {.max_attempts = 1}));
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
    EXPECT_THAT(std::string(status.message()), HasSubstr(peer.address()));
  }
}

TEST_P(BrokenPeersTest, GarbageInsteadOfAnAnswerIsALostConnection) {
  Http2Peer peer(
      {{.turns = {{.reply = [](const PeerRequest&) { return std::string(100, '\xff'); }}}},
       Answering()});
  EXPECT_EQ(Call(*ConnectOnce(peer.address())), absl::OkStatus());
  EXPECT_EQ(peer.num_connections(), 2);
}

// ---- Large messages and chunks ----

// So many bytes for each tensor that no socket holds them, and some of the first.
constexpr int64_t kManyRows = (3 << 20) / 128;
constexpr size_t kFirstPart = 100'000;

// The attempt ends, though most of the message is still the caller's memory lent to gRPC. The next
// one sends the whole message.
TEST_P(BrokenPeersTest, AConnectionMayBreakInALargeMessage) {
  Http2Peer peer({{.turns = {{.then = Then::kClose, .after_bytes = kFirstPart}}},
                  {.turns = {{.reply = EndsWithStatus("5")}, {.reply = RightAnswer}}}});
  const auto client = ConnectOnce(peer.address());
  EXPECT_EQ(Call(*client, kManyRows).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(Call(*client), absl::OkStatus());
  EXPECT_EQ(peer.num_connections(), 2);
}

TEST_P(BrokenPeersTest, AServerMayStopALargeMessage) {
  Http2Peer peer({{.turns = {{.reply = Resets(Http2Error::kCancel), .after_bytes = kFirstPart},
                             {.reply = RightAnswer}}}});
  const auto client = ConnectOnce(peer.address());
  EXPECT_EQ(Call(*client, kManyRows).code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(Call(*client), absl::OkStatus());
  EXPECT_EQ(peer.num_connections(), 1);
}

TEST_P(BrokenPeersTest, AChunkWhoseConnectionBreaksIsSentAgain) {
  Http2Peer peer({{.turns = {{.reply = RightAnswer}, {.then = Then::kClose}}}, Answering()});
  EXPECT_EQ(Call(*ConnectOnce(peer.address(), {.max_message_bytes = 4096}), /*num_rows=*/100),
            absl::OkStatus());
  EXPECT_EQ(peer.num_connections(), 2);
  EXPECT_GE(peer.num_requests(), 1 + 100 * 128 / 4096);
}

// ---- Several servers ----

// Each order of three addresses that begins at another one.
std::vector<std::string> Turned(const std::string& a, const std::string& b, const std::string& c) {
  return {absl::StrCat(a, ",", b, ",", c), absl::StrCat(b, ",", c, ",", a),
          absl::StrCat(c, ",", a, ",", b)};
}

TEST_P(BrokenPeersTest, OneServerOfThreeIsEnough) {
  const Port refuses;
  Http2Peer stranger({{.greeting = "HTTP/1.1 400 Bad Request\r\n\r\n"}}), answers({Answering()});
  for (const std::string& addresses :
       Turned(refuses.address(), stranger.address(), answers.address())) {
    EXPECT_EQ(Call(*ConnectOnce(addresses, {.retry_budget = 0})), absl::OkStatus()) << addresses;
  }
}

TEST_P(BrokenPeersTest, OneServerOfThreeThatDoesNotBreakIsEnough) {
  Http2Peer closes({{.turns = {{.then = Then::kClose}}}});
  Http2Peer resets({{.turns = {{.reply = Resets(Http2Error::kRefusedStream)}}}});
  Http2Peer answers({Answering()});
  for (const std::string& addresses :
       Turned(closes.address(), resets.address(), answers.address())) {
    EXPECT_EQ(Call(*ConnectOnce(addresses, {.retry_budget = 0})), absl::OkStatus()) << addresses;
  }
}

TEST_P(BrokenPeersTest, ThreeServersThatAreGoneAreOneError) {
  const Port ports[3];
  const absl::Status status = Call(*ConnectOnce(
      absl::StrCat(ports[0].address(), ",", ports[1].address(), ",", ports[2].address()),
      {.retry_budget = 0}));
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), StartsWith("no connection to 127.0.0.1:"));
}

// A server that takes connections and never greets, as one whose machine is lost, must not keep a
// call that another server would answer.
TEST_P(BrokenPeersTest, AServerThatNeverGreetsDelaysNoCall) {
  Http2Peer silent({{.greeting = ""}}), answers({Answering()});
  const std::string addresses = absl::StrCat(silent.address(), ",", answers.address());
  EXPECT_EQ(Call(*ConnectOnce(addresses), kRows, /*timeout=*/absl::Seconds(5)), absl::OkStatus());
}

INSTANTIATE_TEST_SUITE_P(EveryForm, BrokenPeersTest, ValuesIn(Forms()),
                         [](const auto& form) { return std::string(form.param.name); });

}  // namespace
}  // namespace swiglu::client
