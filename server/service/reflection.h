// SPDX-License-Identifier: Apache-2.0
//
// Server reflection: tools such as grpcurl ask for the services of a server and for the messages of
// their methods. The answers come from the descriptors that were generated with the messages.
#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "google/protobuf/descriptor.h"
#include "proto/reflection.pb.h"
#include "server/service/control_call.h"

namespace swiglu::server {

// The services of this server as descriptors, reflection included. Immutable after construction, so
// thread-safe.
class Reflection {
 public:
  // The method's path, under the protocol's name and under its older name. Both have the same
  // messages.
  static constexpr char kPath[] = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
  static constexpr char kOlderPath[] =
      "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo";

  Reflection();

  // The answer to one question. If the question is about something that does not exist, the answer
  // says so.
  grpc::reflection::v1::ServerReflectionResponse Answer(
      const grpc::reflection::v1::ServerReflectionRequest& request) const;

 private:
  using Response = grpc::reflection::v1::ServerReflectionResponse;

  // REQUIRES: the file imports no other file.
  void Add(const google::protobuf::FileDescriptorProto& file);
  static void FillFile(const google::protobuf::FileDescriptor* file, absl::string_view asked,
                       Response& response);

  google::protobuf::DescriptorPool pool_;
  std::vector<std::string> services_;  // full names, sorted
};

// The call: questions in, answers out, one after the other. It ends when the caller ends it, or
// when the server drains. It also ends when the caller exceeds the time limit for asking the next
// question or for taking an answer.
class ReflectionCall final : public SmallCall {
 public:
  // `reflection` must outlive it.
  ReflectionCall(Call* call, const Reflection* reflection, const InferDependencies& parts)
      : SmallCall(call, parts), reflection_(reflection) {}

  void OnNoMessage() override { Finish(absl::OkStatus()); }
  void OnWritten(bool ok) override;
  void OnServerEvent(ServerEvent event) override;

 private:
  void OnRequest(grpc::ByteBuffer& message) override;

  const Reflection* const reflection_;
  bool draining_ = false;
};

}  // namespace swiglu::server
