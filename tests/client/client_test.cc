// SPDX-License-Identifier: Apache-2.0
//
// The library's calls, one message each: what they send, what they make of an answer or of none in
// time, and what the server says of itself.
#include "swiglu/client.h"

#include <algorithm>
#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/client/bytes.h"
#include "tests/client/client_fixture.h"
#include "tests/client/fake_server.h"

namespace swiglu::client {
namespace {

using ::testing::ElementsAre;

TEST_F(ClientTest, ForwardGivesTheServersTensor) {
  FakeServer server([](const FakeCall& call) { return EchoInfer(call); });
  const auto client = Connect(server.address());
  const auto h = client->Forward(View(e_, shape_), View(g_, shape_));
  ASSERT_TRUE(h.ok()) << h.status();
  EXPECT_EQ(h->dtype(), Dtype::kFp16);
  EXPECT_EQ(h->shape(), shape_);
  EXPECT_EQ(AsText(h->bytes()), e_);
}

TEST_F(ClientTest, BackwardGivesEachTensorItsPlace) {
  FakeServer server([](const FakeCall& call) { return EchoInfer(call); });
  const auto client = Connect(server.address());
  const auto result = client->Backward(View(dw_, shape_), View(e_, shape_), View(g_, shape_));
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(AsText(result->h.bytes()), dw_);
  EXPECT_EQ(AsText(result->df.bytes()), e_);
  EXPECT_EQ(AsText(result->de.bytes()), g_);
  EXPECT_EQ(result->de.shape(), shape_);
}

TEST_F(ClientTest, NamesTheModelByOperationAndDtype) {
  std::vector<std::string> models;
  FakeServer server([&](const FakeCall& call) {
    inference::ModelInferRequest request;
    request.ParseFromString(call.message);
    models.push_back(request.model_name());
    return EchoInfer(call);
  });
  const auto client = Connect(server.address());
  for (const Dtype dtype : {Dtype::kFp16, Dtype::kBf16, Dtype::kFp32}) {
    const TensorView tensor{dtype, {24 / ElementBytes(dtype)}, AsBytes(e_)};
    EXPECT_TRUE(client->Forward(tensor, tensor).ok());
    EXPECT_TRUE(client->Backward(tensor, tensor, tensor).ok());
  }
  EXPECT_THAT(models,
              ElementsAre("swiglu_forward_fp16", "swiglu_backward_fp16", "swiglu_forward_bf16",
                          "swiglu_backward_bf16", "swiglu_forward_fp32", "swiglu_backward_fp32"));
}

TEST_F(ClientTest, AnnouncesTheSizeOfTheRequest) {
  std::string announced;
  size_t size = 0;
  FakeServer server([&](const FakeCall& call) {
    announced = call.metadata.find("swiglu-request-bytes")->second;
    size = call.message.size();
    return EchoInfer(call);
  });
  EXPECT_TRUE(Connect(server.address())->Forward(View(e_, shape_), View(g_, shape_)).ok());
  EXPECT_EQ(announced, std::to_string(size));
}

TEST_F(ClientTest, TakesTensorsWithoutElements) {
  FakeServer server([](const FakeCall& call) { return EchoInfer(call); });
  const auto h = Connect(server.address())->Forward(View("", {2, 0}), View("", {2, 0}));
  ASSERT_TRUE(h.ok()) << h.status();
  EXPECT_EQ(h->shape(), (Shape{2, 0}));
  EXPECT_TRUE(h->bytes().empty());
}

TEST_F(ClientTest, WritesOverItsInputsInPlace) {
  FakeServer server([](const FakeCall& call) {
    inference::ModelInferRequest request;
    request.ParseFromString(call.message);
    auto response = EchoInfer(request);
    std::rotate(response.mutable_raw_output_contents()->begin(),
                response.mutable_raw_output_contents()->begin() + 1,
                response.mutable_raw_output_contents()->end());
    return Answer(response);
  });
  std::string dw = dw_, e = e_, g = g_;
  const absl::Status status =
      Connect(server.address())
          ->BackwardInto(View(dw, shape_), View(e, shape_), View(g, shape_),
                         {AsWritableBytes(dw), AsWritableBytes(e), AsWritableBytes(g)});
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ(dw, e_);
  EXPECT_EQ(e, g_);
  EXPECT_EQ(g, dw_);
}

TEST_F(ClientTest, RefusesBadInputsBeforeSending) {
  std::atomic<int> num_calls = 0;
  FakeServer server([&](const FakeCall& call) {
    ++num_calls;
    return EchoInfer(call);
  });
  const auto client = Connect(server.address());
  EXPECT_EQ(client->Forward(View(e_, shape_), View(g_, {4, 3})).status().message(),
            "shape of 'g' is [4,3]; 'e' has [3,4]");
  std::string h(23, '?'), good(24, '?');
  EXPECT_EQ(client->ForwardInto(View(e_, shape_), View(g_, shape_), AsWritableBytes(h)).message(),
            "output 'h' has 23 bytes; the inputs have 24");
  for (const int bad : {0, 1, 2}) {
    const auto output = [&](int k) { return AsWritableBytes(k == bad ? h : good); };
    const char* const names[] = {"h", "df", "de"};
    EXPECT_EQ(client
                  ->BackwardInto(View(dw_, shape_), View(e_, shape_), View(g_, shape_),
                                 {output(0), output(1), output(2)})
                  .message(),
              absl::StrCat("output '", names[bad], "' has 23 bytes; the inputs have 24"));
  }
  EXPECT_EQ(num_calls, 0);
}

TEST_F(ClientTest, PassesTheServersCodeAndSentenceOn) {
  FakeReply reply;
  FakeServer server([&](const FakeCall&) { return reply; });
  const auto client = Connect(server.address(), {.max_attempts = 1});
  const std::vector<std::pair<grpc::StatusCode, std::string>> cases = {
      {grpc::StatusCode::NOT_FOUND, "unknown model 'swiglu_forward_fp16'"},
      {grpc::StatusCode::UNAVAILABLE, "queue is full: 4096 requests"},
      {grpc::StatusCode::RESOURCE_EXHAUSTED, "request of 9 bytes exceeds max_request_bytes 8"},
      {grpc::StatusCode::DEADLINE_EXCEEDED, ""},
      {grpc::StatusCode::INTERNAL, "device 0 failed"}};
  for (const auto& [code, message] : cases) {
    reply.status = grpc::Status(code, message);
    const absl::Status status = client->Forward(View(e_, shape_), View(g_, shape_)).status();
    EXPECT_EQ(static_cast<int>(status.code()), static_cast<int>(code));
    EXPECT_EQ(status.message(), absl::StrCat(message, " (from ", server.address(), ")"));
  }
}

TEST_F(ClientTest, KeepsADrainingServersWords) {
  FakeServer server([](const FakeCall&) {
    FakeReply reply = Refusal(grpc::StatusCode::UNAVAILABLE, "server is draining");
    reply.trailers["grpc-retry-pushback-ms"] = "1000";
    return reply;
  });
  EXPECT_EQ(Unnamed(Connect(server.address(), {.max_attempts = 1})
                        ->Forward(View(e_, shape_), View(g_, shape_))
                        .status()),
            absl::UnavailableError("server is draining"));
}

TEST_F(ClientTest, ReportsAnAnswerToAnotherQuestionAsInternal) {
  FakeServer server([](const FakeCall& call) {
    inference::ModelInferRequest request;
    request.ParseFromString(call.message);
    auto response = EchoInfer(request);
    response.set_raw_output_contents(0, "short");
    return Answer(response);
  });
  const absl::Status status =
      Connect(server.address())->Forward(View(e_, shape_), View(g_, shape_)).status();
  EXPECT_EQ(Unnamed(status),
            absl::InternalError("bad response of 'swiglu_forward_fp16': output 'h' has 5 "
                                "bytes; shape [3,4] of FP16 needs 24"));
}

TEST_F(ClientTest, ReportsGarbageAsInternal) {
  FakeServer server([](const FakeCall&) {
    FakeReply reply;
    reply.message = "\xff\xff\xff";
    return reply;
  });
  const auto client = Connect(server.address());
  EXPECT_EQ(client->Forward(View(e_, shape_), View(g_, shape_)).status().code(),
            absl::StatusCode::kInternal);
  EXPECT_EQ(client->ServerReady().status(),
            absl::InternalError("bad response: not a ServerReadyResponse"));
}

TEST_F(ClientTest, GivesUpAtTheDeadline) {
  FakeServer server([](const FakeCall&) {
    FakeReply reply;
    reply.never = true;
    return reply;
  });
  const auto client = Connect(server.address(), {.timeout = absl::Milliseconds(50)});
  EXPECT_EQ(client->Forward(View(e_, shape_), View(g_, shape_)).status(),
            absl::DeadlineExceededError(
                absl::StrCat("no answer from ", server.address(), " within 50ms")));
  CallOptions options;
  options.timeout = absl::Milliseconds(20);
  EXPECT_EQ(client->ServerLive(options).status(),
            absl::DeadlineExceededError(
                absl::StrCat("no answer from ", server.address(), " within 20ms")));
}

// What is left of a deadline that has passed is below zero, and zero for one that passes now.
TEST_F(ClientTest, SendsNothingWhenNoTimeIsLeft) {
  std::atomic<int> num_calls = 0;
  FakeServer server([&](const FakeCall& call) {
    ++num_calls;
    return EchoInfer(call);
  });
  const std::string large = Pattern(20'000, 1);
  for (const absl::Duration timeout :
       {-absl::Seconds(3), -absl::InfiniteDuration(), absl::ZeroDuration()}) {
    const absl::Status late = absl::DeadlineExceededError(
        absl::StrCat("no time for a call to ", server.address(), ": its timeout is ",
                     absl::FormatDuration(timeout)));
    CallOptions options;
    options.timeout = timeout;
    const auto client = Connect(server.address(), {.max_message_bytes = 4096});
    EXPECT_EQ(client->Forward(View(e_, shape_), View(g_, shape_), options).status(), late);
    EXPECT_EQ(
        client->Backward(View(dw_, shape_), View(e_, shape_), View(g_, shape_), options).status(),
        late);
    EXPECT_EQ(client->Forward(View(large, {10'000}), View(large, {10'000}), options).status(),
              late);
    EXPECT_EQ(client->ServerLive(options).status(), late);
    EXPECT_EQ(client->ServerReady(options).status(), late);
    EXPECT_EQ(client->ModelReady("m", options).status(), late);
    EXPECT_EQ(client->ServerMetadata(options).status(), late);
    EXPECT_EQ(client->ModelMetadata("m", options).status(), late);
    EXPECT_EQ(client->ListModels(options).status(), late);
    EXPECT_EQ(client->ModelStatistics("", options).status(), late);
    // What is wrong with the tensors comes first.
    EXPECT_EQ(client->Forward(View(e_, shape_), View(g_, {4, 3}), options).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
  EXPECT_EQ(num_calls, 0);
}

// The time that the server is told, counted from before the call. gRPC rounds it up, by less than a
// hundredth; a busy machine may be late to begin.
TEST_F(ClientTest, TellsTheServerHowMuchTimeThereIs) {
  absl::Time deadline;
  FakeServer server([&](const FakeCall& call) {
    deadline = call.deadline;
    if (call.method == "ModelInfer") return EchoInfer(call);
    return Answer(inference::ServerReadyResponse());
  });
  const auto expect = [&](double seconds, const std::function<absl::Status()>& call) {
    const absl::Time start = absl::Now();
    EXPECT_EQ(call(), absl::OkStatus());
    EXPECT_GE(deadline - start, absl::Seconds(seconds));
    EXPECT_LE(deadline - start, absl::Seconds(1.01 * seconds + 20));
  };
  const std::string large = Pattern(20'000'000, 1);
  const TensorView small_view = View(e_, shape_), large_view = View(large, {10'000'000});
  CallOptions options;
  options.timeout = absl::Seconds(300);
  const auto client = Connect(server.address());
  expect(30, [&] { return client->Forward(small_view, small_view).status(); });
  expect(30, [&] { return client->ServerReady().status(); });
  // 1 s for 100 MB, in and out.
  expect(30.6, [&] { return client->Forward(large_view, large_view).status(); });
  expect(31.2, [&] { return client->Backward(large_view, large_view, large_view).status(); });
  expect(300, [&] { return client->Forward(small_view, small_view, options).status(); });
  expect(300, [&] { return client->ServerReady(options).status(); });
  const auto patient = Connect(server.address(), {.timeout = absl::Seconds(900)});
  expect(900, [&] { return patient->Forward(small_view, small_view).status(); });
  expect(900, [&] { return patient->ServerReady().status(); });
  expect(300, [&] { return patient->ServerReady(options).status(); });
}

TEST_F(ClientTest, ReportsAnAnswerWithoutAMessageAsInternal) {
  FakeServer server([](const FakeCall&) {
    FakeReply reply;
    reply.no_message = true;
    return reply;
  });
  const auto client = Connect(server.address());
  EXPECT_EQ(client->Forward(View(e_, shape_), View(g_, shape_)).status().code(),
            absl::StatusCode::kInternal);
  EXPECT_EQ(client->ServerReady().status().code(), absl::StatusCode::kInternal);
}

TEST_F(ClientTest, TellsWhatTheServerSays) {
  FakeServer server([](const FakeCall& call) {
    if (call.method == "ServerLive") {
      inference::ServerLiveResponse response;
      response.set_live(true);
      return Answer(response);
    }
    if (call.method == "ServerReady") return Answer(inference::ServerReadyResponse());
    if (call.method == "ModelReady") {
      inference::ModelReadyRequest request;
      request.ParseFromString(call.message);
      inference::ModelReadyResponse response;
      response.set_ready(request.name() == "m");
      return Answer(response);
    }
    if (call.method == "ServerMetadata") {
      inference::ServerMetadataResponse response;
      response.set_name("swiglu-server");
      response.set_version("1.2.3");
      response.add_extensions("statistics");
      return Answer(response);
    }
    if (call.method == "RepositoryIndex") {
      inference::RepositoryIndexResponse response;
      auto* model = response.add_models();
      model->set_name("m");
      model->set_version("1");
      model->set_state("UNAVAILABLE");
      model->set_reason("draining");
      return Answer(response);
    }
    if (call.method == "ModelMetadata") {
      inference::ModelMetadataResponse response;
      response.set_name("m");
      response.set_platform("swiglu");
      response.add_versions("1");
      auto* input = response.add_inputs();
      input->set_name("e");
      input->set_datatype("FP16");
      input->add_shape(-1);
      response.add_outputs()->set_name("h");
      (*response.mutable_properties())["device"] = "cpu";
      return Answer(response);
    }
    inference::ModelStatisticsResponse response;
    auto* statistics = response.add_model_stats();
    statistics->set_name("m");
    statistics->set_inference_count(7);
    statistics->set_execution_count(3);
    auto* stats = statistics->mutable_inference_stats();
    stats->mutable_success()->set_count(6);
    stats->mutable_success()->set_ns(6000);
    stats->mutable_fail()->set_count(2);
    stats->mutable_queue()->set_ns(100);
    stats->mutable_compute_infer()->set_ns(200);
    return Answer(response);
  });
  const auto client = Connect(server.address());
  EXPECT_TRUE(client->ServerLive().value());
  EXPECT_FALSE(client->ServerReady().value());
  EXPECT_TRUE(client->ModelReady("m").value());
  EXPECT_FALSE(client->ModelReady("n").value());
  EXPECT_EQ(client->ServerMetadata()->version, "1.2.3");
  EXPECT_THAT(client->ServerMetadata()->extensions, ElementsAre("statistics"));
  const auto models = client->ListModels();
  ASSERT_TRUE(models.ok());
  EXPECT_EQ(models->at(0).reason, "draining");
  const auto info = client->ModelMetadata("m");
  ASSERT_TRUE(info.ok());
  EXPECT_EQ(info->properties.at("device"), "cpu");
  EXPECT_EQ(info->inputs.at(0).shape, Shape{-1});
  EXPECT_EQ(info->outputs.at(0).name, "h");
  const auto counters = client->ModelStatistics("m");
  ASSERT_TRUE(counters.ok());
  EXPECT_EQ(counters->at(0).num_requests, 7);
  EXPECT_EQ(counters->at(0).num_batches, 3);
  EXPECT_EQ(counters->at(0).num_succeeded, 6);
  EXPECT_EQ(counters->at(0).num_failed, 2);
  EXPECT_EQ(counters->at(0).request_time, absl::Microseconds(6));
  EXPECT_EQ(counters->at(0).queue_time, absl::Nanoseconds(100));
  EXPECT_EQ(counters->at(0).compute_time, absl::Nanoseconds(200));
}

}  // namespace
}  // namespace swiglu::client
