// SPDX-License-Identifier: Apache-2.0
//
// Requests that fail while their connection lives on.
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "swiglu/client.h"
#include "tests/client/broken_peers.h"
#include "tests/client/call_forms.h"
#include "tests/client/http2_peer.h"

namespace swiglu::client {
namespace {

using ::testing::Combine;
using ::testing::HasSubstr;
using ::testing::ValuesIn;

Replies ResetsInAnswer(Http2Error error) {
  return [=](const PeerRequest& arrived) {
    return HalfAnswer(arrived) + ResetFrame(arrived.stream, error);
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

}  // namespace
}  // namespace swiglu::client
