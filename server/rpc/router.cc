// SPDX-License-Identifier: Apache-2.0
//
// The table of methods.
#include "server/rpc/router.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "server/rpc/errors.h"
#include "server/rpc/infer_call.h"
#include "server/rpc/messages.h"
#include "server/rpc/stream_infer_call.h"

namespace swiglu::server {
namespace {

constexpr char kInferPath[] = "/inference.GRPCInferenceService/ModelInfer";
constexpr char kStreamInferPath[] = "/inference.GRPCInferenceService/ModelStreamInfer";
constexpr char kHealthCheckPath[] = "/grpc.health.v1.Health/Check";
constexpr char kHealthWatchPath[] = "/grpc.health.v1.Health/Watch";

std::string InferencePath(absl::string_view method) {
  return absl::StrCat("/inference.GRPCInferenceService/", method);
}

}  // namespace

Router::Router(InferParts infer, const ControlService* control, const Health* health,
               RouterOptions options)
    : infer_(infer), control_(control), health_(health), options_(options) {
  Add(InferencePath("ServerLive"), &ControlService::ServerLive);
  Add(InferencePath("ServerReady"), &ControlService::ServerReady);
  Add(InferencePath("ModelReady"), &ControlService::ModelReady);
  Add(InferencePath("ServerMetadata"), &ControlService::ServerMetadata);
  Add(InferencePath("ModelMetadata"), &ControlService::ModelMetadata);
  Add(InferencePath("ModelConfig"), &ControlService::ModelConfig);
  Add(InferencePath("ModelStatistics"), &ControlService::ModelStatistics);
  Add(InferencePath("RepositoryIndex"), &ControlService::RepositoryIndex);
  Add(kHealthCheckPath, &ControlService::HealthCheck);

  for (const char* kind : {"System", "Cuda"}) {
    for (const char* method : {"Status", "Register", "Unregister"}) {
      const std::string name = absl::StrCat(kind, "SharedMemory", method);
      refused_methods_[InferencePath(name)] =
          absl::StrCat(name, ": this server takes no shared memory");
    }
  }
  for (const char* method : {"RepositoryModelLoad", "RepositoryModelUnload"}) {
    refused_methods_[InferencePath(method)] =
        absl::StrCat(method, ": the models of this server are fixed");
  }
  refused_methods_[InferencePath("TraceSetting")] = "TraceSetting: this server keeps no traces";
  refused_methods_[InferencePath("LogSettings")] =
      "LogSettings: logging is set by the server's flags alone";
  if (options_.reflection != nullptr) return;
  for (const char* path : {Reflection::kPath, Reflection::kOlderPath}) {
    refused_methods_[path] = "ServerReflectionInfo: this server runs without --reflection";
  }
}

std::unique_ptr<CallHandler> Router::MakeHandler(Call& call) const {
  const std::string& path = call.path();
  if (call.MetadataBytes() > options_.max_metadata_bytes) return RefuseMetadata(call);
  if (path == kInferPath) {
    return std::make_unique<InferCall>(&call, infer_);
  }
  if (path == kStreamInferPath) {
    return std::make_unique<StreamInferCall>(&call, infer_);
  }
  if (path == kHealthWatchPath) {
    return std::make_unique<HealthWatchCall>(&call, health_, infer_);
  }
  if (options_.reflection != nullptr &&
      (path == Reflection::kPath || path == Reflection::kOlderPath)) {
    return std::make_unique<ReflectionCall>(&call, options_.reflection, infer_);
  }
  if (const auto it = control_methods_.find(path); it != control_methods_.end()) {
    return std::make_unique<ControlCall>(&call, &it->second, infer_);
  }
  if (const auto it = refused_methods_.find(path); it != refused_methods_.end()) {
    return std::make_unique<RefusedCall>(&call, errors::MethodNotOffered(it->second));
  }
  return std::make_unique<RefusedCall>(&call, errors::UnknownMethod(path));
}

std::unique_ptr<CallHandler> Router::RefuseMetadata(Call& call) const {
  absl::Status status = errors::MetadataTooLarge(call.MetadataBytes(), options_.max_metadata_bytes);
  if (call.path() == kInferPath || call.path() == kStreamInferPath) {
    infer_.observer->RequestRejected(Rejection::kTooLarge);
    infer_.service->ReportUnstarted(status, call.started());
    if (RequestLog::Wants(status)) {
      infer_.log->Write(
          status, {"", call.Metadata(kRequestIdMetadata), [&call] { return call.DescribePeer(); },
                   nullptr, call.started(), Clock::now()});
    }
  }
  return std::make_unique<RefusedCall>(&call, std::move(status));
}

template <typename Request, typename Response>
void Router::Add(const std::string& path, ServiceMethod<Request, Response> method) {
  control_methods_[path] = [this,
                            method](grpc::ByteBuffer bytes) -> absl::StatusOr<grpc::ByteBuffer> {
    Request request;
    absl::Status status = ParseMessage(bytes, &request);
    if (!status.ok()) return status;
    Response response;
    status = (control_->*method)(request, &response);
    if (!status.ok()) return status;
    return SerializeMessage(response);
  };
}

}  // namespace swiglu::server
