// SPDX-License-Identifier: Apache-2.0
//
// Every form of call, against a gRPC server that is slow, refuses or answers to another question.
#include <atomic>
#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "swiglu/client.h"
#include "tests/client/call_forms.h"
#include "tests/client/client_fixture.h"
#include "tests/client/fake_server.h"

namespace swiglu::client {
namespace {

using ::testing::AnyOf;
using ::testing::EndsWith;
using ::testing::TestWithParam;
using ::testing::ValuesIn;

inference::ModelInferResponse FlippedAnswer(const FakeCall& call) {
  inference::ModelInferRequest request;
  EXPECT_TRUE(request.ParseFromString(call.message));
  return FlipInfer(request);
}

// A server that does as `refusal` says to the first calls, and answers all others.
class RefusingServer {
 public:
  RefusingServer(int num_refusals, const FakeReply& refusal)
      : server_([this, num_refusals, refusal](const FakeCall& call) {
          return ++num_calls_ <= num_refusals ? refusal : Answer(FlippedAnswer(call));
        }) {}

  const std::string& address() const { return server_.address(); }
  // What a call makes of a refusal with that message.
  std::string Says(absl::string_view message) const {
    return absl::StrCat(message, " (from ", address(), ")");
  }
  int num_calls() const { return num_calls_; }

 private:
  std::atomic<int> num_calls_ = 0;
  FakeServer server_;
};

FakeReply RefusalWithPushback(grpc::StatusCode code, const std::string& ms) {
  FakeReply reply = Refusal(code, "no room");
  reply.trailers["grpc-retry-pushback-ms"] = ms;
  return reply;
}

// ---- Refusals ----

class RefusalTest : public TestWithParam<Form> {
 protected:
  absl::Status Call(Client& client, int64_t num_rows = 2, const CallOptions& options = {}) {
    return GetParam().call(client, num_rows, options);
  }
  absl::Status Call(const std::string& address, const Options& options = {}) {
    return Call(*Connect(address, options));
  }
};

TEST_P(RefusalTest, AServerThatNeverAnswersIsLate) {
  FakeReply never;
  never.never = true;
  RefusingServer server(1, never);
  CallOptions options;
  options.timeout = absl::Milliseconds(10);
  EXPECT_EQ(Call(*Connect(server.address()), 2, options),
            absl::DeadlineExceededError(
                absl::StrCat("no answer from ", server.address(), " within 10ms")));
}

TEST_P(RefusalTest, EachCodeOfTheServerIsKept) {
  for (int code = 1; code <= 16; ++code) {
    if (code == grpc::StatusCode::UNAVAILABLE) continue;
    RefusingServer server(1, Refusal(static_cast<grpc::StatusCode>(code), "so it is"));
    EXPECT_EQ(Call(server.address()),
              absl::Status(static_cast<absl::StatusCode>(code), server.Says("so it is")));
    EXPECT_EQ(server.num_calls(), 1);
  }
}

TEST_P(RefusalTest, UnavailableIsRetried) {
  RefusingServer server(2, Refusal(grpc::StatusCode::UNAVAILABLE, "so it is"));
  EXPECT_EQ(Call(server.address(), {.max_attempts = 1}),
            absl::UnavailableError(server.Says("so it is")));
  EXPECT_EQ(Call(server.address()), absl::OkStatus());
  EXPECT_EQ(server.num_calls(), 3);
}

TEST_P(RefusalTest, APushbackSaysWhetherToTryAgain) {
  for (const auto code : {grpc::StatusCode::UNAVAILABLE, grpc::StatusCode::RESOURCE_EXHAUSTED}) {
    RefusingServer busy(2, RefusalWithPushback(code, "1"));
    EXPECT_EQ(Call(busy.address()), absl::OkStatus());
    EXPECT_EQ(busy.num_calls(), 3);
    RefusingServer never(1, RefusalWithPushback(code, "-1"));
    EXPECT_EQ(Call(never.address()),
              absl::Status(static_cast<absl::StatusCode>(code), never.Says("no room")));
    EXPECT_EQ(never.num_calls(), 1);
  }
  RefusingServer internal(1, RefusalWithPushback(grpc::StatusCode::INTERNAL, "1"));
  EXPECT_EQ(Call(internal.address()), absl::InternalError(internal.Says("no room")));
  EXPECT_EQ(internal.num_calls(), 1);
}

TEST_P(RefusalTest, TheLastErrorTellsHowOftenItWasTried) {
  RefusingServer server(1000, RefusalWithPushback(grpc::StatusCode::UNAVAILABLE, "1"));
  EXPECT_EQ(Call(server.address(), {.max_attempts = 3}),
            absl::UnavailableError(server.Says("no room") + " (tried 3 times)"));
  EXPECT_EQ(server.num_calls(), 3);
}

// A message above chunk_bytes is split, and one that the server then refuses comes in smaller ones.
TEST_P(RefusalTest, WhatIsTooLargeIsSplit) {
  RefusingServer server(2, Refusal(grpc::StatusCode::RESOURCE_EXHAUSTED, "too large"));
  EXPECT_EQ(Call(*Connect(server.address(), {.num_connections = 1, .chunk_bytes = 16 << 10}), 1000),
            absl::OkStatus());
  EXPECT_GT(server.num_calls(), 2 + 1000 * 128 / (16 << 10));
}

// The one that was connected first.
TEST_P(RefusalTest, TheServerThatRefusesIsNamedAmongSeveral) {
  const FakeReply refusal = RefusalWithPushback(grpc::StatusCode::UNAVAILABLE, "-1");
  RefusingServer first(1, refusal), other(1, refusal);
  const absl::Status status = Call(absl::StrCat(first.address(), ",", other.address()));
  EXPECT_EQ(status,
            absl::UnavailableError((first.num_calls() == 1 ? first : other).Says("no room")));
  EXPECT_EQ(first.num_calls() + other.num_calls(), 1);
}

INSTANTIATE_TEST_SUITE_P(EveryForm, RefusalTest, ValuesIn(Forms()),
                         [](const auto& form) { return std::string(form.param.name); });

// ---- Answers to another question ----

// An answer that is wrong in one way, and what the call says of it. OUTPUT stands for the name of
// the form's first output.
struct WrongAnswer {
  const char* name;
  void (*spoil)(inference::ModelInferResponse& response);
  const char* message;
};

void PrintTo(const WrongAnswer& wrong, std::ostream* out) { *out << wrong.name; }

const WrongAnswer kWrongAnswers[] = {
    {"TooFewBytes",
     [](inference::ModelInferResponse& response) {
       response.mutable_raw_output_contents(0)->pop_back();
     },
     "output 'OUTPUT' has 255 bytes; shape [2,64] of FP16 needs 256"},
    {"TooManyBytes",
     [](inference::ModelInferResponse& response) {
       response.mutable_raw_output_contents(0)->push_back('x');
     },
     "output 'OUTPUT' has 257 bytes; shape [2,64] of FP16 needs 256"},
    {"NoBytes",
     [](inference::ModelInferResponse& response) {
       response.mutable_raw_output_contents(0)->clear();
     },
     "output 'OUTPUT' has 0 bytes; shape [2,64] of FP16 needs 256"},
    {"OtherName",
     [](inference::ModelInferResponse& response) {
       response.mutable_outputs(0)->set_name("other");
     },
     "an output is 'other'; expected 'OUTPUT'"},
    {"OtherDatatype",
     [](inference::ModelInferResponse& response) {
       response.mutable_outputs(0)->set_datatype("BF16");
     },
     "output 'OUTPUT' is BF16; expected FP16"},
    {"OtherShape",
     [](inference::ModelInferResponse& response) {
       response.mutable_outputs(0)->set_shape(0, 64);
       response.mutable_outputs(0)->set_shape(1, 2);
     },
     "shape of 'OUTPUT' is [64,2]; expected [2,64]"},
    {"OtherRank",
     [](inference::ModelInferResponse& response) {
       response.mutable_outputs(0)->clear_shape();
       response.mutable_outputs(0)->add_shape(128);
     },
     "shape of 'OUTPUT' is [128]; expected [2,64]"},
};

class WrongAnswerTest : public TestWithParam<std::tuple<Form, WrongAnswer>> {};

TEST_P(WrongAnswerTest, IsInternalAndNotRetried) {
  const auto& [form, wrong] = GetParam();
  std::atomic<int> num_calls = 0;
  FakeServer server([&, spoil = wrong.spoil](const FakeCall& call) {
    inference::ModelInferResponse response = FlippedAnswer(call);
    if (++num_calls == 1) spoil(response);
    return Answer(response);
  });
  const auto client = Connect(server.address());
  EXPECT_EQ(form.call(*client, /*num_rows=*/2, {}),
            absl::InternalError(absl::StrCat(
                "bad response of '", form.model,
                "': ", absl::StrReplaceAll(wrong.message, {{"OUTPUT", form.first_output}}),
                " (from ", server.address(), ")")));
  EXPECT_EQ(form.call(*client, /*num_rows=*/2, {}), absl::OkStatus());
  EXPECT_EQ(num_calls, 2);
}

INSTANTIATE_TEST_SUITE_P(EveryForm, WrongAnswerTest,
                         ::testing::Combine(ValuesIn(Forms()), ValuesIn(kWrongAnswers)),
                         [](const auto& both) {
                           return absl::StrCat(std::get<0>(both.param).name,
                                               std::get<1>(both.param).name);
                         });

// The numbers of outputs differ from form to form.
class WrongCountTest : public TestWithParam<Form> {
 protected:
  // What a call says of an answer that is spoilt like that.
  absl::Status CallSpoilt(const std::function<void(inference::ModelInferResponse&)>& spoil) {
    FakeServer server([&](const FakeCall& call) {
      inference::ModelInferResponse response = FlippedAnswer(call);
      num_outputs_ = response.outputs_size();
      spoil(response);
      return Answer(response);
    });
    address_ = server.address();
    return GetParam().call(*Connect(address_), /*num_rows=*/2, {});
  }
  absl::Status Bad(const std::string& what) const {
    return absl::InternalError(
        absl::StrCat("bad response of '", GetParam().model, "': ", what, " (from ", address_, ")"));
  }

  int num_outputs_ = 0;
  std::string address_;
};

TEST_P(WrongCountTest, AnOutputTooManyIsInternal) {
  const absl::Status status = CallSpoilt([](auto& response) {
    *response.add_outputs() = response.outputs(0);
    response.add_raw_output_contents(response.raw_output_contents(0));
  });
  EXPECT_EQ(status, Bad(absl::StrCat("it has the bytes of more than ", num_outputs_, " outputs")));
}

TEST_P(WrongCountTest, AnOutputTooFewIsInternal) {
  const absl::Status status = CallSpoilt([](auto& response) {
    response.mutable_outputs()->RemoveLast();
    response.mutable_raw_output_contents()->RemoveLast();
  });
  EXPECT_EQ(status, Bad(absl::StrCat("it has the bytes of ", num_outputs_ - 1,
                                     " outputs; expected ", num_outputs_)));
}

TEST_P(WrongCountTest, AFormTooFewIsInternal) {
  const absl::Status status =
      CallSpoilt([](auto& response) { response.mutable_outputs()->RemoveLast(); });
  EXPECT_EQ(status,
            Bad(absl::StrCat("it has ", num_outputs_ - 1, " outputs; expected ", num_outputs_)));
}

TEST_P(WrongCountTest, AnEmptyAnswerIsInternal) {
  const absl::Status status = CallSpoilt([](auto& response) { response.Clear(); });
  EXPECT_EQ(status, Bad(absl::StrCat("it has the bytes of 0 outputs; expected ", num_outputs_)));
}

TEST_P(WrongCountTest, AWrongAnswerNamesItsServerAmongSeveral) {
  const auto answers_nothing = [](const FakeCall&) {
    return Answer(inference::ModelInferResponse());
  };
  FakeServer first(answers_nothing), other(answers_nothing);
  const absl::Status status = GetParam().call(
      *Connect(absl::StrCat(first.address(), ",", other.address())), /*num_rows=*/2, {});
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(status.message()),
              AnyOf(EndsWith(absl::StrCat(" (from ", first.address(), ")")),
                    EndsWith(absl::StrCat(" (from ", other.address(), ")"))));
}

INSTANTIATE_TEST_SUITE_P(EveryForm, WrongCountTest, ValuesIn(Forms()),
                         [](const auto& form) { return std::string(form.param.name); });

}  // namespace
}  // namespace swiglu::client
