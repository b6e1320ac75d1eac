// SPDX-License-Identifier: Apache-2.0
//
// What tests with peers that break have in common: answers, right and cut short, and faults that
// every form of call meets.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <tuple>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "proto/inference.pb.h"
#include "swiglu/client.h"
#include "tests/client/call_forms.h"
#include "tests/client/client_fixture.h"
#include "tests/client/http2_peer.h"

namespace swiglu::client {

// ---- Answers ----

using Replies = std::function<std::string(const PeerRequest&)>;

inline constexpr int64_t kRows = 2;

// The message of the right answer.
inline std::string RightMessage(const PeerRequest& arrived) {
  inference::ModelInferRequest request;
  EXPECT_TRUE(request.ParseFromString(std::string(arrived.message())));
  return FlipInfer(request).SerializeAsString();
}

inline std::string RightAnswer(const PeerRequest& arrived) {
  return AnswerFrames(arrived.stream, RightMessage(arrived));
}

// The headers of an answer, and a message after a prefix that is `too_many` bytes off.
inline std::string BeginOfAnswer(const PeerRequest& arrived, const std::string& message,
                                 int64_t too_many = 0) {
  const size_t size = message.size() + static_cast<size_t>(too_many);
  return AnswerHeaders(arrived.stream) + DataFrames(arrived.stream, MessagePrefix(size) + message);
}

// The right answer without its second half and without its end.
inline std::string HalfAnswer(const PeerRequest& arrived) {
  const std::string message = RightMessage(arrived);
  const size_t half = message.size() / 2;
  return BeginOfAnswer(arrived, message.substr(0, half),
                       static_cast<int64_t>(message.size() - half));
}

inline PeerConnection Answering() { return {.turns = {{.reply = RightAnswer}}}; }

// A client with one connection to each server.
// The peers do not take streams.
inline std::unique_ptr<Client> ConnectOnce(const std::string& address, Options options = {}) {
  options.num_connections = 1;
  options.streams = false;
  return Connect(address, options);
}

inline Replies Resets(Http2Error error) {
  return [=](const PeerRequest& arrived) { return ResetFrame(arrived.stream, error); };
}

inline Replies EndsWithStatus(const std::string& grpc_status) {
  return [=](const PeerRequest& arrived) {
    return AnswerHeaders(arrived.stream) + Trailers(arrived.stream, grpc_status);
  };
}

// ---- Faults ----

// What a peer does to a request.
struct Fault {
  const char* name;
  Turn turn;
  absl::StatusCode code = absl::StatusCode::kUnavailable;  // what the call makes of it
};

inline void PrintTo(const Fault& fault, std::ostream* out) { *out << fault.name; }

class FaultTest : public ::testing::TestWithParam<std::tuple<Form, Fault>> {
 protected:
  absl::Status Call(Client& client) { return form_.call(client, kRows, {}); }

  const Form form_ = std::get<0>(GetParam());
  const Fault fault_ = std::get<1>(GetParam());
};

inline std::string FaultTestName(const ::testing::TestParamInfo<FaultTest::ParamType>& info) {
  return absl::StrCat(std::get<0>(info.param).name, std::get<1>(info.param).name);
}

}  // namespace swiglu::client
