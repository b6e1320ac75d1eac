// SPDX-License-Identifier: Apache-2.0
//
// The table of methods.
#include "server/service/router.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "server/codec/errors.h"
#include "server/core/retry.h"
#include "server/service/infer_call.h"
#include "server/service/messages.h"
#include "server/service/stream_infer_call.h"

namespace swiglu::server {
namespace {

constexpr char kInferPath[] = "/inference.GRPCInferenceService/ModelInfer";
constexpr char kStreamInferPath[] = "/inference.GRPCInferenceService/ModelStreamInfer";
constexpr char kServerLivePath[] = "/inference.GRPCInferenceService/ServerLive";
constexpr char kServerReadyPath[] = "/inference.GRPCInferenceService/ServerReady";
constexpr char kHealthCheckPath[] = "/grpc.health.v1.Health/Check";
constexpr char kHealthWatchPath[] = "/grpc.health.v1.Health/Watch";

// Further calls for those that ask whether the server is well: a crowd must not make it look dead.
constexpr int64_t kHealthCalls = 1024;

std::string InferencePath(absl::string_view method) {
  return absl::StrCat("/inference.GRPCInferenceService/", method);
}

}  // namespace

Router::Router(InferDependencies infer, const ControlService* control, const Health* health,
               RouterOptions options)
    : infer_(infer), health_(health), options_(options) {
  Add(control, kServerLivePath, &ControlService::ServerLive);
  Add(control, kServerReadyPath, &ControlService::ServerReady);
  Add(control, InferencePath("ModelReady"), &ControlService::ModelReady);
  Add(control, InferencePath("ServerMetadata"), &ControlService::ServerMetadata);
  Add(control, InferencePath("ModelMetadata"), &ControlService::ModelMetadata);
  Add(control, InferencePath("ModelConfig"), &ControlService::ModelConfig);
  Add(control, InferencePath("ModelStatistics"), &ControlService::ModelStatistics);
  Add(control, InferencePath("RepositoryIndex"), &ControlService::RepositoryIndex);
  Add(control, kHealthCheckPath, &ControlService::HealthCheck);

  AddRegionMethods();
  AddMlpMethods();
  refused_methods_[InferencePath("TraceSetting")] = "TraceSetting: this server keeps no traces";
  refused_methods_[InferencePath("LogSettings")] =
      "LogSettings: logging is set by the server's flags alone";
  if (options_.reflection != nullptr) return;
  for (const char* path : {Reflection::kPath, Reflection::kOlderPath}) {
    refused_methods_[path] = "ServerReflectionInfo: this server runs without --reflection";
  }
}

std::unique_ptr<CallHandler> Router::MakeHandler(Call& call, int64_t num_open) const {
  const std::string& path = call.path();
  if (num_open - num_refused_.load(std::memory_order_relaxed) >= MaxOpen(path)) {
    return Refuse(call, errors::TooManyCalls(options_.max_calls));
  }
  if (const int64_t bytes = call.MetadataBytes(); bytes > options_.max_metadata_bytes) {
    return Refuse(call, errors::MetadataTooLarge(bytes, options_.max_metadata_bytes));
  }
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
    return Refuse(call, errors::MethodNotOffered(it->second));
  }
  return Refuse(call, errors::UnknownMethod(path));
}

int64_t Router::MaxOpen(const std::string& path) const {
  const bool is_health =
      path == kHealthCheckPath || path == kServerLivePath || path == kServerReadyPath;
  return options_.max_calls + (is_health ? kHealthCalls : 0);
}

std::unique_ptr<CallHandler> Router::Refuse(Call& call, absl::Status status) const {
  if (infer_.watch != nullptr) infer_.watch->CountUnread(call);
  if (call.path() == kInferPath || call.path() == kStreamInferPath) {
    if (errors::IsRetryable(status)) infer_.observer->RetryAdvised();
    infer_.service->ReportUnstarted(status, &call, call.started());
  } else {
    RequestRecord record;
    record.status = status;
    record.started = call.started();
    record.ended = Clock::now();
    record.origin = &call;
    infer_.log->RequestFinished(record);
  }
  return std::make_unique<RefusedCall>(&call, std::move(status), &num_refused_);
}

void Router::AddRegionMethods() {
  const RegionService* const regions = options_.regions;
  if (regions == nullptr || !regions->is_enabled()) {
    for (const char* kind : {"System", "Cuda"}) {
      for (const char* method : {"Status", "Register", "Unregister"}) {
        const std::string name = absl::StrCat(kind, "SharedMemory", method);
        refused_methods_[InferencePath(name)] =
            absl::StrCat(name, ": this server takes no shared memory");
      }
    }
    return;
  }
  Add(regions, InferencePath("SystemSharedMemoryStatus"), &RegionService::SystemStatus);
  Add(regions, InferencePath("CudaSharedMemoryStatus"), &RegionService::CudaStatus);
  AddChange<inference::SystemSharedMemoryRegisterResponse>(
      regions, InferencePath("SystemSharedMemoryRegister"), &RegionService::SystemRegister);
  AddChange<inference::CudaSharedMemoryRegisterResponse>(
      regions, InferencePath("CudaSharedMemoryRegister"), &RegionService::CudaRegister);
  AddChange<inference::SystemSharedMemoryUnregisterResponse>(
      regions, InferencePath("SystemSharedMemoryUnregister"), &RegionService::SystemUnregister);
  AddChange<inference::CudaSharedMemoryUnregisterResponse>(
      regions, InferencePath("CudaSharedMemoryUnregister"), &RegionService::CudaUnregister);
}

void Router::AddMlpMethods() {
  const std::string load = InferencePath("RepositoryModelLoad");
  if (options_.mlps != nullptr && options_.mlps->is_enabled()) {
    AddChange<inference::RepositoryModelLoadResponse>(options_.mlps, load, &MlpService::Load);
  } else {
    refused_methods_[load] = "RepositoryModelLoad: this server runs without --mlp_control";
  }
  refused_methods_[InferencePath("RepositoryModelUnload")] =
      "RepositoryModelUnload: the models of this server are fixed";
}

template <typename Service, typename Request, typename Response>
void Router::Add(const Service* service, const std::string& path,
                 absl::Status (Service::*method)(const Request&, Response*) const) {
  control_methods_[path] = [service, method](Call&, grpc::ByteBuffer bytes, ControlDone done) {
    Request request;
    Response response;
    absl::Status status = ParseMessage(bytes, &request);
    if (status.ok()) status = (service->*method)(request, &response);
    if (!status.ok()) return done(status);
    done(SerializeMessage(response));
  };
}

template <typename Response, typename Service, typename Request>
void Router::AddChange(const Service* service, const std::string& path,
                       void (Service::*method)(Call&, const Request&, typename Service::Done)
                           const) {
  control_methods_[path] = [service, method](Call& call, grpc::ByteBuffer bytes, ControlDone done) {
    Request request;
    const absl::Status status = ParseMessage(bytes, &request);
    if (!status.ok()) return done(status);
    (service->*method)(call, request, [done = std::move(done)](absl::Status changed) mutable {
      if (!changed.ok()) return done(std::move(changed));
      done(SerializeMessage(Response()));
    });
  };
}

}  // namespace swiglu::server
