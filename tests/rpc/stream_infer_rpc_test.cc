// SPDX-License-Identifier: Apache-2.0
//
// ModelStreamInfer over a real connection: answers as they finish, errors as answers, the end of a
// stream from either side, and that whatever breaks it frees everything.
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "server/service/stream_infer_call.h"
#include "tests/rpc/calls.h"

namespace swiglu::server {
namespace {

using inference::ModelInferRequest;
using inference::ModelStreamInferResponse;

constexpr char kStreamMethod[] = "/inference.GRPCInferenceService/ModelStreamInfer";

ModelInferRequest RequestWithId(const std::string& id, const std::string& model = kForwardFp16) {
  ModelInferRequest request = GoodRequest(model, {3});
  request.set_id(id);
  return request;
}

class StreamInferRpcTest : public HoldingServerTest {
 protected:
  // Two lanes, so that a later request can be done before an earlier one.
  StreamInferRpcTest() : HoldingServerTest(2) {}
};

TEST_F(StreamInferRpcTest, WrapsTheAnswerOfModelInfer) {
  executor_.Release();
  InferStream stream(server_);
  stream.Send(RequestWithId("seven", kBackwardBf16));
  const ModelStreamInferResponse answer = stream.Receive();
  EXPECT_EQ(answer.error_message(), "");
  const auto& response = answer.infer_response();
  EXPECT_EQ(response.id(), "seven");
  EXPECT_EQ(response.model_name(), "swiglu_backward_bf16");
  EXPECT_EQ(response.model_version(), "1");
  ASSERT_EQ(response.outputs_size(), 3);
  EXPECT_EQ(response.outputs(2).name(), "de");
  ASSERT_EQ(response.raw_output_contents_size(), 3);
  EXPECT_EQ(response.raw_output_contents(2), "\3\3\3\3\3\3");
  stream.HalfClose();
  EXPECT_TRUE(stream.Finish().ok());
  EXPECT_EQ(server_.observer.num_retries_advised(), 0);
}

TEST_F(StreamInferRpcTest, AnswersInTheOrderOfCompletion) {
  InferStream stream(server_);
  stream.Send(RequestWithId("first"));
  ASSERT_TRUE(executor_.AwaitHeld(1));
  stream.Send(RequestWithId("second"));
  ASSERT_TRUE(executor_.AwaitHeld(2));
  executor_.Complete(absl::OkStatus(), 1);
  EXPECT_EQ(stream.Receive().infer_response().id(), "second");
  executor_.Complete();
  EXPECT_EQ(stream.Receive().infer_response().id(), "first");
}

TEST_F(StreamInferRpcTest, MarksAnswersAsTheLastOfTheirRequestWhereThatIsWanted) {
  executor_.Release();
  InferStream stream(server_);
  for (const bool wanted : {true, false}) {
    for (const std::string model : {"swiglu_forward_fp16", "nope"}) {
      ModelInferRequest request = RequestWithId("x");
      request.set_model_name(model);
      (*request.mutable_parameters())["triton_enable_empty_final_response"].set_bool_param(wanted);
      stream.Send(request);
      const ModelStreamInferResponse answer = stream.Receive();
      const auto& parameters = answer.infer_response().parameters();
      EXPECT_EQ(parameters.size(), wanted ? 1u : 0u) << model;
      EXPECT_TRUE(!wanted || parameters.at("triton_final_response").bool_param()) << model;
    }
  }
  stream.Send(RequestWithId("x"));
  EXPECT_EQ(stream.Receive().infer_response().parameters_size(), 0);
}

TEST_F(StreamInferRpcTest, EndsTheStreamWithTheCodeOfAnErrorWhereThatIsWanted) {
  RawCall stream(server_, kStreamMethod, {{"triton_grpc_error", "true"}});
  ASSERT_TRUE(stream.Write(RequestWithId("slow").SerializeAsString()));
  ASSERT_TRUE(executor_.AwaitHeld());
  ASSERT_TRUE(stream.Write(RequestWithId("good").SerializeAsString()));
  ASSERT_TRUE(executor_.AwaitHeld(2));
  executor_.Complete(absl::OkStatus(), 1);
  ModelInferRequest bad = RequestWithId("bad");
  bad.set_model_version("7");
  ASSERT_TRUE(stream.Write(bad.SerializeAsString()));
  // What was answered before the error comes before it; what was not has no answer.
  std::string bytes;
  ASSERT_TRUE(stream.Read(&bytes));
  ModelStreamInferResponse answer;
  ASSERT_TRUE(answer.ParseFromString(bytes));
  EXPECT_EQ(answer.infer_response().id(), "good");
  EXPECT_FALSE(stream.Read(&bytes));
  EXPECT_CALL_STATUS(stream.Finish(), grpc::StatusCode::NOT_FOUND,
                     "model 'swiglu_forward_fp16' has version 1, not 7");
  executor_.Complete();
}

TEST_F(StreamInferRpcTest, EndsTheStreamWithAdviceToComeAgain) {
  RawCall stream(server_, kStreamMethod, {{"triton_grpc_error", "true"}});
  server_.admission.StartDrain();
  ASSERT_TRUE(stream.Write(RequestWithId("late").SerializeAsString()));
  EXPECT_CALL_STATUS(stream.Finish(), grpc::StatusCode::UNAVAILABLE, "server is draining");
  EXPECT_EQ(stream.trailers().count("grpc-retry-pushback-ms"), 1u);
  EXPECT_EQ(server_.observer.num_retries_advised(), 1);
}

TEST_F(StreamInferRpcTest, KeepsTheStreamOpenForAnyOtherWordOfTheCaller) {
  executor_.Release();
  RawCall stream(server_, kStreamMethod, {{"triton_grpc_error", "false"}});
  ModelInferRequest bad = RequestWithId("bad");
  bad.set_model_version("7");
  std::string bytes;
  ModelStreamInferResponse answer;
  for (const ModelInferRequest& request : {bad, RequestWithId("good")}) {
    ASSERT_TRUE(stream.Write(request.SerializeAsString()));
    ASSERT_TRUE(stream.Read(&bytes));
    ASSERT_TRUE(answer.ParseFromString(bytes));
    EXPECT_EQ(answer.infer_response().id(), request.id());
  }
}

TEST_F(StreamInferRpcTest, KeepsTheStreamOpenAfterAnError) {
  executor_.Release();
  InferStream stream(server_);
  ModelInferRequest bad = RequestWithId("bad");
  bad.mutable_inputs(1)->set_name("up");
  stream.Send(bad);
  const ModelStreamInferResponse answer = stream.Receive();
  ModelStreamInferResponse expected;
  expected.set_error_message("unknown input 'up': 'swiglu_forward_fp16' takes e, g");
  expected.mutable_infer_response()->set_model_name("swiglu_forward_fp16");
  expected.mutable_infer_response()->set_id("bad");
  EXPECT_EQ(answer.DebugString(), expected.DebugString());

  stream.Send(RequestWithId("good"));
  EXPECT_EQ(stream.Receive().infer_response().id(), "good");
  stream.HalfClose();
  EXPECT_TRUE(stream.Finish().ok());
}

TEST_F(StreamInferRpcTest, AnswersAnErrorAheadOfWhatIsStillComputed) {
  InferStream stream(server_);
  stream.Send(RequestWithId("slow"));
  ASSERT_TRUE(executor_.AwaitHeld());
  stream.Send(RequestWithId("bad", "swiglu_forward_fp32"));
  ModelInferRequest unknown = RequestWithId("unknown");
  unknown.set_model_name("nope");
  stream.Send(unknown);
  ASSERT_TRUE(executor_.AwaitHeld(2));
  const ModelStreamInferResponse answer = stream.Receive();
  EXPECT_EQ(answer.error_message(), std::string("unknown model 'nope'") + kKnownModels);
  EXPECT_EQ(answer.infer_response().model_name(), "nope");
  EXPECT_EQ(answer.infer_response().id(), "unknown");
  executor_.Complete(absl::InternalError("device 0 failed"), 1);
  EXPECT_EQ(stream.Receive().error_message(), "device 0 failed");
  executor_.Complete();
  EXPECT_EQ(stream.Receive().infer_response().id(), "slow");
}

TEST_F(StreamInferRpcTest, AnswersAMessageThatIsNoRequest) {
  executor_.Release();
  RawCall call(server_, kStreamMethod);
  ASSERT_TRUE(call.Write("\x80"));
  std::string bytes;
  ASSERT_TRUE(call.Read(&bytes));
  ModelStreamInferResponse answer;
  ASSERT_TRUE(answer.ParseFromString(bytes));
  EXPECT_EQ(answer.error_message(), "malformed ModelInferRequest: no field at byte 0");
  EXPECT_EQ(answer.infer_response().id(), "");

  ASSERT_TRUE(call.Write(RequestWithId("next").SerializeAsString()));
  ASSERT_TRUE(call.Read(&bytes));
  ASSERT_TRUE(answer.ParseFromString(bytes));
  EXPECT_EQ(answer.infer_response().id(), "next");
  EXPECT_TRUE(call.WritesDone());
  EXPECT_TRUE(call.Finish().ok());
}

TEST_F(StreamInferRpcTest, EndsAfterTheLastAnswerOnceTheCallerIsDone) {
  InferStream stream(server_);
  stream.Send(RequestWithId("a"));
  ASSERT_TRUE(executor_.AwaitHeld());
  stream.HalfClose();
  executor_.Complete();
  EXPECT_EQ(stream.Receive().infer_response().id(), "a");
  EXPECT_TRUE(stream.Finish().ok());
}

TEST_F(StreamInferRpcTest, SaysSoWhenNoWholeRequestCame) {
  InferStream stream(server_);
  stream.HalfClose();
  EXPECT_CALL_STATUS(
      stream.Finish(), grpc::StatusCode::INVALID_ARGUMENT,
      "malformed ModelInferRequest: no whole message came, or its flag byte is neither 0 nor 1");
  EXPECT_EQ(server_.observer.num_finished(), 0u);
}

TEST_F(StreamInferRpcTest, StopsReadingAtTheLimitAndLosesNothing) {
  constexpr int kRequests = 3 * StreamInferCall::kMaxUnanswered;
  InferStream stream(server_);
  std::thread sender([&stream] {
    for (int i = 0; i < kRequests; ++i) stream.Send(RequestWithId(std::to_string(i)));
    stream.HalfClose();
  });
  // One in each lane, and the rest of the limit queued: what is above it stays unread.
  EXPECT_TRUE(executor_.AwaitHeld(2));
  EXPECT_TRUE(Eventually([this] {
    return server_.admission.queued_requests() == StreamInferCall::kMaxUnanswered - 2;
  }));
  executor_.Complete();
  // The next batch was formed before the first answer made room. The last of them may have been
  // admitted and not yet queued.
  const std::vector<size_t> sizes = executor_.batch_sizes();
  ASSERT_GE(sizes.size(), 3u);
  EXPECT_LE(sizes[2], static_cast<size_t>(StreamInferCall::kMaxUnanswered - 2));
  EXPECT_GE(sizes[2], static_cast<size_t>(StreamInferCall::kMaxUnanswered - 3));
  executor_.Release();

  std::set<std::string> ids;
  for (int i = 0; i < kRequests; ++i) ids.insert(stream.Receive().infer_response().id());
  EXPECT_EQ(ids.size(), static_cast<size_t>(kRequests));
  sender.join();
  EXPECT_TRUE(stream.Finish().ok());
  EXPECT_EQ(server_.observer.AwaitFinished(kRequests).size(), static_cast<size_t>(kRequests));
}

TEST_F(StreamInferRpcTest, ReportsEveryMessageOnce) {
  executor_.Release();
  InferStream stream(server_);
  const ModelInferRequest good = RequestWithId("good");
  ModelInferRequest bad = RequestWithId("bad");
  bad.clear_raw_input_contents();
  for (const ModelInferRequest& request : {good, bad, good}) {
    stream.Send(request);
    stream.Receive();
  }
  stream.HalfClose();
  EXPECT_TRUE(stream.Finish().ok());

  const std::vector<RequestRecord> records = server_.observer.AwaitFinished(3);
  ASSERT_EQ(records.size(), 3u);
  EXPECT_EQ(records[0].status.code(), absl::StatusCode::kOk);
  EXPECT_EQ(records[0].model, FindModel(kForwardFp16));
  EXPECT_EQ(records[0].bytes_in, static_cast<int64_t>(good.ByteSizeLong()));
  EXPECT_EQ(records[0].num_elements, 3);
  EXPECT_EQ(records[1].status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(records[2].status.code(), absl::StatusCode::kOk);
  EXPECT_EQ(server_.observer.AwaitRejected(1), std::vector<Rejection>{Rejection::kInvalid});
  EXPECT_EQ(server_.observer.AwaitSent(3).size(), 3u);
}

// --- Broken streams

TEST_F(StreamInferRpcTest, FreesEverythingWhenItIsCancelled) {
  InferStream stream(server_);
  for (int i = 0; i < 10; ++i) stream.Send(RequestWithId(std::to_string(i)));
  ASSERT_TRUE(executor_.AwaitHeld(2));
  ASSERT_TRUE(Eventually([this] { return server_.admission.queued_requests() == 8; }));
  stream.Cancel();
  EXPECT_EQ(stream.Finish().error_code(), grpc::StatusCode::CANCELLED);
  executor_.Release();
  // Each accepted one is finished, whether it ran or was dropped.
  EXPECT_EQ(server_.observer.AwaitFinished(10).size(), 10u);
}

TEST_F(StreamInferRpcTest, FreesAnswersThatACancelledCallerNeverRead) {
  executor_.Release();
  InferStream stream(server_);
  // More than a connection takes unread.
  for (int i = 0; i < 4; ++i) stream.Send(GoodRequest(kForwardFp16, {4'000'000}));
  EXPECT_EQ(server_.observer.AwaitFinished(4).size(), 4u);
  EXPECT_GT(server_.admission.used_bytes(MemoryKind::kResponse), 0);
  stream.Cancel();
  ModelStreamInferResponse answer;
  while (stream.TryReceive(&answer)) {
  }
  EXPECT_EQ(stream.Finish().error_code(), grpc::StatusCode::CANCELLED);
}

// --- Draining

TEST_F(StreamInferRpcTest, DrainsByAnsweringWhatItAcceptedAndEnding) {
  InferStream stream(server_);
  stream.Send(RequestWithId("accepted"));
  ASSERT_TRUE(executor_.AwaitHeld());
  server_.StartDrain();
  executor_.Complete();
  EXPECT_EQ(stream.Receive().infer_response().id(), "accepted");
  EXPECT_CALL_STATUS(stream.Finish(), grpc::StatusCode::UNAVAILABLE, "server is draining");
}

TEST_F(StreamInferRpcTest, EndsAnIdleStreamWhenDraining) {
  executor_.Release();
  InferStream stream(server_);
  stream.Send(RequestWithId("a"));
  stream.Receive();
  server_.StartDrain();
  EXPECT_CALL_STATUS(stream.Finish(), grpc::StatusCode::UNAVAILABLE, "server is draining");
  EXPECT_EQ(server_.observer.num_retries_advised(), 1);
}

TEST_F(StreamInferRpcTest, RefusesAMessageThatComesWhileItDrains) {
  InferStream stream(server_);
  stream.Send(RequestWithId("accepted"));
  ASSERT_TRUE(executor_.AwaitHeld());
  // The refusal comes before the streams hear of it.
  server_.admission.StartDrain();
  stream.Send(RequestWithId("late"));
  const ModelStreamInferResponse refused = stream.Receive();
  EXPECT_EQ(refused.error_message(), "server is draining");
  EXPECT_EQ(refused.infer_response().id(), "late");
  EXPECT_EQ(server_.observer.AwaitRejected(1), std::vector<Rejection>{Rejection::kDraining});
  // An answer in a stream has no place for the advice.
  EXPECT_EQ(server_.observer.num_retries_advised(), 0);
  server_.StartDrain();
  executor_.Complete();
  EXPECT_EQ(stream.Receive().infer_response().id(), "accepted");
  EXPECT_CALL_STATUS(stream.Finish(), grpc::StatusCode::UNAVAILABLE, "server is draining");
}

// A message that crosses the end of its stream is not answered, and breaks nothing.
TEST_F(StreamInferRpcTest, EndsOnceThoughMessagesKeepComing) {
  executor_.Release();
  for (int round = 0; round < 100; ++round) {
    InferStream stream(server_);
    ModelStreamInferResponse answer;
    // An I/O thread that was late to hear of the round before may end this one early.
    if (!stream.TrySend(RequestWithId("first")) || !stream.TryReceive(&answer)) {
      EXPECT_EQ(stream.Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
      continue;
    }
    std::thread drainer([this] { server_.rpc->Broadcast(ServerEvent::kDraining); });
    int num_sent = 0;
    while (stream.TrySend(RequestWithId("more")) && num_sent < 1000) ++num_sent;
    drainer.join();
    int num_answered = 0;
    while (stream.TryReceive(&answer)) ++num_answered;
    EXPECT_LE(num_answered, num_sent + 1);
    EXPECT_EQ(stream.Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
  }
  server_.StartDrain();
}

}  // namespace
}  // namespace swiglu::server
