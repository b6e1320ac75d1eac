// SPDX-License-Identifier: Apache-2.0
//
// Every form of call, against peers that leave, that are silent or no servers, and against several.
// broken_connections_test.cc and broken_requests_test.cc have the faults of one request.
#include "tests/client/broken_peers.h"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "swiglu/client.h"
#include "tests/client/call_forms.h"
#include "tests/client/http2_peer.h"
#include "tests/client/silent_peer.h"

namespace swiglu::client {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::StartsWith;
using ::testing::TestWithParam;
using ::testing::ValuesIn;

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
