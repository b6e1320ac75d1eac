// SPDX-License-Identifier: Apache-2.0
//
// The answers about the server itself: liveness, readiness, metadata, configuration, statistics,
// the list of models. Reads state, changes nothing.
#pragma once

#include <array>
#include <chrono>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "proto/health.pb.h"
#include "proto/inference.pb.h"
#include "server/core/model_registry.h"
#include "server/core/region.h"
#include "server/core/statistics.h"
#include "server/service/health.h"

namespace swiglu::server {

struct ControlServiceOptions {
  // The version of the build. ServerMetadata returns it.
  std::string version;
  // What the models run on. ModelMetadata returns it as the property `device`.
  std::string device;
  // Whether `device` is a GPU, and how many batches run at once. ModelConfig returns both in its
  // instance group.
  bool on_gpu = false;
  int num_lanes = 1;
  // Which kinds of regions the server takes, by RegionKind. ServerMetadata returns this.
  std::array<bool, kNumRegionKinds> regions{};
  // How long a request may wait for others. ModelConfig returns it under dynamic batching.
  std::chrono::microseconds max_queue_delay{0};
};

// One method per RPC. Each fills `response` or returns the error for the caller. Thread-safe.
class ControlService {
 public:
  // `statistics` has the figures of `models`.
  ControlService(ControlServiceOptions options, const ModelRegistry* models, const Health* health,
                 const Statistics* statistics)
      : options_(std::move(options)), models_(models), health_(health), statistics_(statistics) {}

  absl::Status ServerLive(const inference::ServerLiveRequest& request,
                          inference::ServerLiveResponse* response) const;
  absl::Status ServerReady(const inference::ServerReadyRequest& request,
                           inference::ServerReadyResponse* response) const;
  absl::Status ModelReady(const inference::ModelReadyRequest& request,
                          inference::ModelReadyResponse* response) const;
  absl::Status ServerMetadata(const inference::ServerMetadataRequest& request,
                              inference::ServerMetadataResponse* response) const;
  absl::Status ModelMetadata(const inference::ModelMetadataRequest& request,
                             inference::ModelMetadataResponse* response) const;
  absl::Status ModelConfig(const inference::ModelConfigRequest& request,
                           inference::ModelConfigResponse* response) const;
  absl::Status ModelStatistics(const inference::ModelStatisticsRequest& request,
                               inference::ModelStatisticsResponse* response) const;
  absl::Status RepositoryIndex(const inference::RepositoryIndexRequest& request,
                               inference::RepositoryIndexResponse* response) const;
  absl::Status HealthCheck(const grpc::health::v1::HealthCheckRequest& request,
                           grpc::health::v1::HealthCheckResponse* response) const;

 private:
  const ControlServiceOptions options_;
  const ModelRegistry* const models_;
  const Health* const health_;
  const Statistics* const statistics_;
};

}  // namespace swiglu::server
