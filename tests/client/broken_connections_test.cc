// SPDX-License-Identifier: Apache-2.0
//
// Connections that break under a request.
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "swiglu/client.h"
#include "tests/client/broken_peers.h"
#include "tests/client/call_forms.h"
#include "tests/client/client_fixture.h"
#include "tests/client/http2_peer.h"

namespace swiglu::client {
namespace {

using ::testing::Combine;
using ::testing::HasSubstr;
using ::testing::ValuesIn;

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

// The other connection has a call under way, so the one that is lost would be taken again.
TEST_F(ClientTest, ALostConnectionIsLeftForAnotherOfItsServer) {
  absl::Notification has_come;
  const Turn holds = {.reply = [&](const PeerRequest&) {
    has_come.Notify();
    return std::string();
  }};
  Http2Peer peer({{.turns = {holds, {.reply = RightAnswer}}},
                  {.after_greeting = Then::kClose, .is_last = true}});
  const auto client = Connect(peer.address(), {.num_connections = 2, .coalesce_bytes = 0});
  const auto held = client->ForwardAsync(View(e_, shape_), View(g_, shape_));
  has_come.WaitForNotification();
  EXPECT_EQ(client->Forward(View(e_, shape_), View(g_, shape_)).status(), absl::OkStatus());
  EXPECT_EQ(peer.num_connections(), 2);
}

}  // namespace
}  // namespace swiglu::client
