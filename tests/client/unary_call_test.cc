// SPDX-License-Identifier: Apache-2.0
//
// Which ends of a call are answers of its server, and which gRPC makes by itself. A server that has
// not answered counts as silent. broken_peers_test.cc has the errors that a caller gets.
#include "client/unary_call.h"

#include <ostream>
#include <string>
#include <utility>

#include "absl/time/clock.h"
#include "client/event_queue.h"
#include "gtest/gtest.h"
#include "tests/client/broken_peers.h"
#include "tests/client/http2_peer.h"

namespace swiglu::client {
namespace {

// An end of a call whose connection lives on.
struct CallEnd {
  const char* name;
  Replies reply;
  absl::StatusCode code;
  bool is_answer;
};

void PrintTo(const CallEnd& end, std::ostream* out) { *out << end.name; }

const CallEnd kCallEnds[] = {
    {"Result", [](const PeerRequest& arrived) { return AnswerFrames(arrived.stream, "result"); },
     absl::StatusCode::kOk, true},
    {"NotFound", EndsWithStatus("5"), absl::StatusCode::kNotFound, true},
    {"UnknownOfTheServer", EndsWithStatus("2"), absl::StatusCode::kUnknown, true},
    {"Unavailable", EndsWithStatus("14"), absl::StatusCode::kUnavailable, false},
    {"DeadlineExceeded", EndsWithStatus("4"), absl::StatusCode::kDeadlineExceeded, false},
    {"ResetAsCancelled", Resets(Http2Error::kCancel), absl::StatusCode::kCancelled, false},
    // gRPC's UNKNOWN "Stream removed".
    {"NoTrailers",
     [](const PeerRequest& arrived) {
       return AnswerHeaders(arrived.stream) + DataFrames(arrived.stream, "", StreamEnd::kHere);
     },
     absl::StatusCode::kUnavailable, false},
};

// The first of two peers ends the call; both are connected.
class CallEndTest : public ::testing::TestWithParam<CallEnd> {
 protected:
  CallEndTest() {
    pool_.Release(pool_.Acquire(1, {}), 1, {});  // begins to connect
    while (pool_.ConnectedChannel(0) == nullptr || pool_.ConnectedChannel(1) == nullptr) {
      queue_.Poll();
    }
  }

  CallOutcome CallFirst() {
    const CallOptions options;
    CallContext context{TimeLimit(absl::Minutes(1)), &options};
    context.tried.Add(1);
    OutgoingMessage message;
    message.Append(grpc::Slice("request"));
    CallOutcome outcome;
    auto* const call = new UnaryCall(&pool_, "/service/Method", context, &queue_);
    call->Start(std::move(message), [&](CallOutcome its_outcome) {
      outcome = std::move(its_outcome);
      queue_.Notify();
    });
    queue_.RunUntilNotified(Wait::kSleep);
    return outcome;
  }

  // Whether the first peer is avoided if it has answered nothing since then.
  bool IsAvoidedIfSilent(absl::Time since) {
    for (int i = 0; i < 4; ++i) {
      pool_.AvoidIfSilent(0, since);
      PooledChannel* const channel = pool_.Acquire(1, {});
      pool_.Release(channel, 1, {});
      if (channel->server == 0) return false;
    }
    return true;
  }

  Http2Peer first_{{{.turns = {{.reply = GetParam().reply}}}}};
  Http2Peer second_{{PeerConnection{}}};
  EventQueue queue_;
  ConnectionPool pool_{{first_.address(), second_.address()}, 1, Credentials::Insecure()};
};

TEST_P(CallEndTest, IsOrIsNoAnswerOfTheServer) {
  const absl::Time before = absl::Now();
  const CallOutcome outcome = CallFirst();
  ASSERT_NE(outcome.channel, nullptr);
  EXPECT_EQ(outcome.channel->server, 0);
  EXPECT_EQ(outcome.answer.status().code(), GetParam().code);
  EXPECT_EQ(IsAvoidedIfSilent(before), !GetParam().is_answer);
}

INSTANTIATE_TEST_SUITE_P(UnaryCallTest, CallEndTest, ::testing::ValuesIn(kCallEnds),
                         [](const auto& end) { return std::string(end.param.name); });

}  // namespace
}  // namespace swiglu::client
