// SPDX-License-Identifier: Apache-2.0
//
// Clients, and their calls without tensors. client_elementwise.cc has the others.
#include "swiglu/client.h"

#include <malloc.h>
#include <stdlib.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "client/client_calls.h"
#include "google/protobuf/stubs/logging.h"
#include "proto/inference.pb.h"
#include "swiglu/client_mlp.h"

namespace swiglu::client {
namespace {

std::vector<TensorInfo> ToTensors(
    const google::protobuf::RepeatedPtrField<inference::ModelMetadataResponse::TensorMetadata>&
        tensors) {
  std::vector<TensorInfo> infos;
  for (const auto& tensor : tensors) {
    infos.push_back(
        {tensor.name(), tensor.datatype(), {tensor.shape().begin(), tensor.shape().end()}});
  }
  return infos;
}

ModelCounters ToCounters(const inference::ModelStatistics& statistics) {
  const auto time = [](const inference::StatisticDuration& duration) {
    return absl::Nanoseconds(static_cast<int64_t>(duration.ns()));
  };
  const inference::InferStatistics& infer = statistics.inference_stats();
  ModelCounters counters;
  counters.name = statistics.name();
  counters.version = statistics.version();
  counters.num_requests = static_cast<int64_t>(statistics.inference_count());
  counters.num_batches = static_cast<int64_t>(statistics.execution_count());
  counters.num_succeeded = static_cast<int64_t>(infer.success().count());
  counters.num_failed = static_cast<int64_t>(infer.fail().count());
  counters.request_time = time(infer.success());
  counters.queue_time = time(infer.queue());
  counters.compute_time = time(infer.compute_infer());
  return counters;
}

}  // namespace

void TuneProcess() {
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  // gRPC allocates and frees a slice for every 64 KiB of a message. If freed memory returned to the
  // kernel each time, its reuse would cost page faults.
  mallopt(M_TRIM_THRESHOLD, 1 << 30);
  mallopt(M_TOP_PAD, 64 << 20);
  mallopt(M_MMAP_THRESHOLD, 1 << 30);
  setenv("GRPC_VERBOSITY", "NONE", /*overwrite=*/0);
  google::protobuf::SetLogHandler(nullptr);
}

absl::StatusOr<Client> Client::Create(absl::string_view address, const Options& options) {
  absl::StatusOr<std::shared_ptr<Connection>> connection = MakeConnection(address, options);
  if (!connection.ok()) return connection.status();
  return Client(*std::move(connection), options);
}

Client::Client(std::shared_ptr<Connection> connection, const Options& options)
    : target_{std::move(connection), options.timeout} {}

Mlp Client::Mlp(absl::string_view name, int layer) const {
  return client::Mlp(target_, absl::StrCat("mlp_", name, "_", layer));
}

absl::StatusOr<bool> Client::ServerLive(const CallOptions& options) const {
  auto response = Control<inference::ServerLiveResponse>(target_, "ServerLive",
                                                         inference::ServerLiveRequest(), options);
  if (!response.ok()) return response.status();
  return response->live();
}

absl::StatusOr<bool> Client::ServerReady(const CallOptions& options) const {
  auto response = Control<inference::ServerReadyResponse>(target_, "ServerReady",
                                                          inference::ServerReadyRequest(), options);
  if (!response.ok()) return response.status();
  return response->ready();
}

absl::StatusOr<bool> Client::ModelReady(absl::string_view model, const CallOptions& options) const {
  inference::ModelReadyRequest request;
  request.set_name(std::string(model));
  auto response = Control<inference::ModelReadyResponse>(target_, "ModelReady", request, options);
  if (!response.ok()) return response.status();
  return response->ready();
}

absl::StatusOr<ServerInfo> Client::ServerMetadata(const CallOptions& options) const {
  auto response = Control<inference::ServerMetadataResponse>(
      target_, "ServerMetadata", inference::ServerMetadataRequest(), options);
  if (!response.ok()) return response.status();
  return ServerInfo{response->name(),
                    response->version(),
                    {response->extensions().begin(), response->extensions().end()}};
}

absl::StatusOr<ModelInfo> Client::ModelMetadata(absl::string_view model,
                                                const CallOptions& options) const {
  inference::ModelMetadataRequest request;
  request.set_name(std::string(model));
  auto response =
      Control<inference::ModelMetadataResponse>(target_, "ModelMetadata", request, options);
  if (!response.ok()) return response.status();
  return ModelInfo{response->name(),
                   response->platform(),
                   {response->versions().begin(), response->versions().end()},
                   ToTensors(response->inputs()),
                   ToTensors(response->outputs()),
                   {response->properties().begin(), response->properties().end()}};
}

absl::StatusOr<std::vector<ModelState>> Client::ListModels(const CallOptions& options) const {
  auto response = Control<inference::RepositoryIndexResponse>(
      target_, "RepositoryIndex", inference::RepositoryIndexRequest(), options);
  if (!response.ok()) return response.status();
  std::vector<ModelState> models;
  for (const auto& model : response->models()) {
    models.push_back({model.name(), model.version(), model.state(), model.reason()});
  }
  return models;
}

absl::StatusOr<std::vector<ModelCounters>> Client::ModelStatistics(
    absl::string_view model, const CallOptions& options) const {
  inference::ModelStatisticsRequest request;
  request.set_name(std::string(model));
  auto response =
      Control<inference::ModelStatisticsResponse>(target_, "ModelStatistics", request, options);
  if (!response.ok()) return response.status();
  std::vector<ModelCounters> counters;
  for (const auto& statistics : response->model_stats()) {
    counters.push_back(ToCounters(statistics));
  }
  return counters;
}

absl::Status Client::RegisterSystemRegion(absl::string_view name, absl::string_view key,
                                          int64_t size_bytes, const CallOptions& options) const {
  if (absl::Status status = CheckRegionsAllowed(*target_.connection); !status.ok()) return status;
  inference::SystemSharedMemoryRegisterRequest request;
  request.set_name(std::string(name));
  request.set_key(std::string(key));
  request.set_byte_size(static_cast<uint64_t>(size_bytes));
  return Control<inference::SystemSharedMemoryRegisterResponse>(
             target_, "SystemSharedMemoryRegister", request, options, size_bytes)
      .status();
}

absl::Status Client::RegisterCudaRegion(absl::string_view name, absl::string_view handle,
                                        int64_t device, int64_t size_bytes,
                                        const CallOptions& options) const {
  if (absl::Status status = CheckRegionsAllowed(*target_.connection); !status.ok()) return status;
  inference::CudaSharedMemoryRegisterRequest request;
  request.set_name(std::string(name));
  request.set_raw_handle(std::string(handle));
  request.set_device_id(device);
  request.set_byte_size(static_cast<uint64_t>(size_bytes));
  return Control<inference::CudaSharedMemoryRegisterResponse>(target_, "CudaSharedMemoryRegister",
                                                              request, options, size_bytes)
      .status();
}

absl::Status Client::UnregisterRegion(RegionKind kind, absl::string_view name,
                                      const CallOptions& options) const {
  if (name.empty()) return absl::InvalidArgumentError("the name of a region is empty");
  return Unregister(kind, name, options);
}

absl::Status Client::UnregisterAllRegions(RegionKind kind, const CallOptions& options) const {
  return Unregister(kind, "", options);
}

absl::StatusOr<std::vector<RegionInfo>> Client::ListRegions(RegionKind kind,
                                                            const CallOptions& options) const {
  if (absl::Status status = CheckRegionsAllowed(*target_.connection); !status.ok()) return status;
  std::vector<RegionInfo> regions;
  const auto add = [&](const auto& region, int64_t device) {
    regions.push_back({region.name(), kind, static_cast<int64_t>(region.byte_size()), device});
  };
  if (kind == RegionKind::kSystem) {
    auto response = Control<inference::SystemSharedMemoryStatusResponse>(
        target_, "SystemSharedMemoryStatus", inference::SystemSharedMemoryStatusRequest(), options);
    if (!response.ok()) return response.status();
    for (const auto& [name, region] : response->regions()) add(region, -1);
  } else {
    auto response = Control<inference::CudaSharedMemoryStatusResponse>(
        target_, "CudaSharedMemoryStatus", inference::CudaSharedMemoryStatusRequest(), options);
    if (!response.ok()) return response.status();
    for (const auto& [name, region] : response->regions()) {
      add(region, static_cast<int64_t>(region.device_id()));
    }
  }
  std::sort(regions.begin(), regions.end(),
            [](const RegionInfo& a, const RegionInfo& b) { return a.name < b.name; });
  return regions;
}

absl::Status Client::Unregister(RegionKind kind, absl::string_view name,
                                const CallOptions& options) const {
  if (absl::Status status = CheckRegionsAllowed(*target_.connection); !status.ok()) return status;
  if (kind == RegionKind::kSystem) {
    inference::SystemSharedMemoryUnregisterRequest request;
    request.set_name(std::string(name));
    return Control<inference::SystemSharedMemoryUnregisterResponse>(
               target_, "SystemSharedMemoryUnregister", request, options)
        .status();
  }
  inference::CudaSharedMemoryUnregisterRequest request;
  request.set_name(std::string(name));
  return Control<inference::CudaSharedMemoryUnregisterResponse>(
             target_, "CudaSharedMemoryUnregister", request, options)
      .status();
}

}  // namespace swiglu::client
