// SPDX-License-Identifier: Apache-2.0
//
// Calls that a test takes step by step: an inference stream, and a call of any method whose bytes,
// and whose absence of bytes, the test decides.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tests/rpc/server_fixture.h"

namespace swiglu::server {

// A ModelStreamInfer. Not thread-safe, but for one sender beside one receiver.
class InferStream {
 public:
  explicit InferStream(TestServer& server) : stream_(server.stub->ModelStreamInfer(&context_)) {}

  // False once the call is over.
  bool TrySend(const inference::ModelInferRequest& request) { return stream_->Write(request); }
  void Send(const inference::ModelInferRequest& request) { EXPECT_TRUE(TrySend(request)); }
  void HalfClose() { EXPECT_TRUE(stream_->WritesDone()); }
  // False when there are no more answers.
  bool TryReceive(inference::ModelStreamInferResponse* answer) { return stream_->Read(answer); }
  inference::ModelStreamInferResponse Receive() {
    inference::ModelStreamInferResponse answer;
    EXPECT_TRUE(TryReceive(&answer));
    return answer;
  }
  void Cancel() { context_.TryCancel(); }
  // How the call ended; there must be no more answers.
  grpc::Status Finish() {
    inference::ModelStreamInferResponse answer;
    EXPECT_FALSE(TryReceive(&answer)) << answer.ShortDebugString();
    return stream_->Finish();
  }

 private:
  PatientContext context_;
  std::unique_ptr<
      grpc::ClientReaderWriter<inference::ModelInferRequest, inference::ModelStreamInferResponse>>
      stream_;
};

using Headers = std::vector<std::pair<std::string, std::string>>;

// A call of any method, each step of which is done when its function returns. It begins with its
// headers alone.
class RawCall {
 public:
  RawCall(TestServer& server, const std::string& method, const Headers& headers = {})
      : stub_(server.channel) {
    for (const auto& [key, value] : headers) context_.AddMetadata(key, value);
    call_ = stub_.PrepareCall(&context_, method, &queue_);
    call_->StartCall(nullptr);
    EXPECT_TRUE(Next());
  }
  ~RawCall() {
    if (!finished_) Cancel();
    if (!finished_) Finish();
  }

  // False once the call is over.
  bool Write(const std::string& message) {
    const grpc::Slice slice(message);
    call_->Write(grpc::ByteBuffer(&slice, 1), nullptr);
    return Next();
  }
  bool Read(std::string* message) {
    grpc::ByteBuffer buffer;
    call_->Read(&buffer, nullptr);
    if (!Next()) return false;
    *message = ToString(buffer);
    return true;
  }
  bool WritesDone() {
    call_->WritesDone(nullptr);
    return Next();
  }
  void Cancel() { context_.TryCancel(); }
  // How the call ended; answers that were not read are dropped.
  grpc::Status Finish() {
    std::string answer;
    while (Read(&answer)) {
    }
    grpc::Status status;
    call_->Finish(&status, nullptr);
    EXPECT_TRUE(Next());
    finished_ = true;
    return status;
  }
  std::multimap<std::string, std::string> trailers() const { return Trailers(context_); }

 private:
  bool Next() {
    void* tag = nullptr;
    bool ok = false;
    EXPECT_TRUE(queue_.Next(&tag, &ok));
    return ok;
  }

  grpc::GenericStub stub_;
  grpc::CompletionQueue queue_;
  PatientContext context_;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> call_;
  bool finished_ = false;
};

// Returns once the server has dealt with every message and every cancellation sent on its channel
// so far. REQUIRES: one I/O thread, which hears of a call's end before it hears of a later call on
// the same connection.
inline void AwaitAllHeard(TestServer& server) {
  for (int i = 0; i < 2; ++i) {
    PatientContext context;
    inference::ServerLiveResponse response;
    EXPECT_TRUE(server.stub->ServerLive(&context, inference::ServerLiveRequest(), &response).ok());
  }
}

}  // namespace swiglu::server
