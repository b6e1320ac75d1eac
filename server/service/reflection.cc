// SPDX-License-Identifier: Apache-2.0
//
// The descriptors, and the call.
#include "server/service/reflection.h"

#include <algorithm>

#include "absl/strings/str_replace.h"
#include "google/protobuf/descriptor.pb.h"
#include "proto/health.pb.h"
#include "proto/inference.pb.h"
#include "server/codec/errors.h"
#include "server/log/log.h"
#include "server/service/messages.h"

namespace swiglu::server {
namespace {

using google::protobuf::FileDescriptorProto;
using grpc::reflection::v1::ServerReflectionRequest;
using grpc::reflection::v1::ServerReflectionResponse;

FileDescriptorProto ToProto(const google::protobuf::FileDescriptor* file) {
  FileDescriptorProto proto;
  file->CopyTo(&proto);
  return proto;
}

// Reflection's own file under the protocol's older name.
FileDescriptorProto OlderReflection(FileDescriptorProto file) {
  const auto rename = [](const std::string& text) {
    return absl::StrReplaceAll(text, {{"grpc.reflection.v1.", "grpc.reflection.v1alpha."}});
  };
  file.set_name("proto/reflection_v1alpha.proto");
  file.set_package("grpc.reflection.v1alpha");
  file.clear_options();
  for (auto& message : *file.mutable_message_type()) {
    for (auto& field : *message.mutable_field()) {
      if (field.has_type_name()) field.set_type_name(rename(field.type_name()));
    }
  }
  for (auto& method : *file.mutable_service(0)->mutable_method()) {
    method.set_input_type(rename(method.input_type()));
    method.set_output_type(rename(method.output_type()));
  }
  return file;
}

void FillError(const absl::Status& status, ServerReflectionResponse& response) {
  response.mutable_error_response()->set_error_code(static_cast<int>(status.code()));
  response.mutable_error_response()->set_error_message(std::string(status.message()));
}

}  // namespace

Reflection::Reflection() {
  const FileDescriptorProto reflection = ToProto(ServerReflectionRequest::descriptor()->file());
  Add(ToProto(inference::ModelInferRequest::descriptor()->file()));
  Add(ToProto(grpc::health::v1::HealthCheckRequest::descriptor()->file()));
  Add(reflection);
  Add(OlderReflection(reflection));
  std::sort(services_.begin(), services_.end());
}

void Reflection::Add(const FileDescriptorProto& file) {
  CHECK(file.dependency_size() == 0);
  const google::protobuf::FileDescriptor* added = pool_.BuildFile(file);
  CHECK(added != nullptr);
  for (int i = 0; i < added->service_count(); ++i) {
    services_.push_back(added->service(i)->full_name());
  }
}

void Reflection::FillFile(const google::protobuf::FileDescriptor* file, absl::string_view asked,
                          Response& response) {
  if (file == nullptr) return FillError(errors::NotReflected(asked), response);
  response.mutable_file_descriptor_response()->add_file_descriptor_proto(
      ToProto(file).SerializeAsString());
}

ServerReflectionResponse Reflection::Answer(const ServerReflectionRequest& request) const {
  ServerReflectionResponse response;
  response.set_valid_host(request.host());
  *response.mutable_original_request() = request;
  switch (request.message_request_case()) {
    case ServerReflectionRequest::kFileByFilename:
      FillFile(pool_.FindFileByName(request.file_by_filename()), request.file_by_filename(),
               response);
      break;
    case ServerReflectionRequest::kFileContainingSymbol:
      FillFile(pool_.FindFileContainingSymbol(request.file_containing_symbol()),
               request.file_containing_symbol(), response);
      break;
    case ServerReflectionRequest::kFileContainingExtension:
      // No message of this server has extensions.
      FillError(errors::NotReflected(request.file_containing_extension().containing_type()),
                response);
      break;
    case ServerReflectionRequest::kAllExtensionNumbersOfType: {
      const std::string& type = request.all_extension_numbers_of_type();
      if (pool_.FindMessageTypeByName(type) == nullptr) {
        FillError(errors::NotReflected(type), response);
      } else {
        response.mutable_all_extension_numbers_response()->set_base_type_name(type);
      }
      break;
    }
    case ServerReflectionRequest::kListServices:
      for (const std::string& service : services_) {
        response.mutable_list_services_response()->add_service()->set_name(service);
      }
      break;
    case ServerReflectionRequest::MESSAGE_REQUEST_NOT_SET:
      FillError(errors::Malformed("ServerReflectionRequest", "it asks nothing"), response);
      break;
  }
  return response;
}

void ReflectionCall::OnRequest(grpc::ByteBuffer& message) {
  ServerReflectionRequest request;
  const absl::Status status = ParseMessage(message, &request);
  if (!status.ok()) return Finish(status);
  const grpc::ByteBuffer answer = SerializeMessage(reflection_->Answer(request));
  writing_ = true;
  due_ = parts_.stall_limit.Due(Clock::now(), static_cast<int64_t>(answer.Length()));
  call_->Write(answer);
}

void ReflectionCall::OnWritten(bool ok) {
  writing_ = false;
  if (finished_ || !ok) return;
  if (draining_) return Finish(errors::Draining());
  Read(Clock::now());
}

void ReflectionCall::OnServerEvent(ServerEvent event) {
  if (finished_) return;
  SmallCall::OnServerEvent(event);
  if (event != ServerEvent::kDraining) return;
  draining_ = true;
  if (!writing_) Finish(errors::Draining());
}

}  // namespace swiglu::server
