// SPDX-License-Identifier: Apache-2.0
//
// Each flag's way to the part that it is for, and what follows from the memory budget.
#include "server/server_options.h"

#include <algorithm>
#include <limits>

#include "absl/time/time.h"
#include "server/base/address.h"
#include "version/version.h"

namespace swiglu::server {
namespace {

constexpr int64_t kMiB = int64_t{1} << 20;

// The most that small messages may have beyond their half of the budget.
constexpr int64_t kMostSmallReserveBytes = 8 * kMiB;

// What the executor keeps for itself of the slab pool.
constexpr int64_t kExecutorBytes = kMiB;

// What the gRPC library may hold of messages: half of the budget, and what comes before the server
// sees it or refuses it. Past that, the library breaks off calls that it picks, innocent ones too.
// Through a unix socket nobody sees what comes until it is there.
int64_t ReceiveQuota(const Flags& flags) {
  const bool is_measured = UnixSocketPath(flags.grpc_address).empty();
  return flags.memory_budget_bytes / 2 + (is_measured ? 64 : 32) * kMiB;
}

AdmissionOptions AdmissionOptionsOf(const Flags& flags) {
  return {.max_queued_requests = flags.max_queued_requests,
          .memory_budget_bytes = flags.memory_budget_bytes,
          .small_message_reserve_bytes =
              std::min(flags.memory_budget_bytes / 32, kMostSmallReserveBytes)};
}

RpcServerOptions RpcServerOptionsOf(const Flags& flags, int64_t max_connections) {
  return {.address = flags.grpc_address,
          .unix_socket_mode = flags.unix_socket_mode,
          .max_connections = max_connections,
          .io_threads = flags.io_threads,
          .receive_quota_bytes = ReceiveQuota(flags),
          .connections = {.max_age = flags.max_connection_age,
                          .max_age_grace = flags.max_connection_age_grace,
                          .keepalive_time = flags.keepalive_time,
                          .keepalive_timeout = flags.keepalive_timeout,
                          .min_ping_interval = flags.min_ping_interval}};
}

RegionLimits RegionLimitsOf(const Flags& flags) {
  return {.enabled = {flags.system_shared_memory, flags.cuda_shared_memory},
          .max_regions = flags.max_regions,
          .max_region_bytes = flags.max_region_bytes == 0 ? std::numeric_limits<int64_t>::max()
                                                          : flags.max_region_bytes,
          .max_pinned_bytes = flags.max_pinned_bytes,
          .idle_timeout = absl::ToChronoNanoseconds(flags.region_idle_timeout)};
}

Model MlpModelOf(const OfferedMlp& mlp, size_t index, Op op, const Flags& flags) {
  const MlpLayer& layer = mlp.layers[index];
  return MakeMlpModel({.op = op,
                       .dtype = layer.dtype,
                       .mlp = mlp.spec.name,
                       .layer = layer.number,
                       .hidden = layer.hidden,
                       .intermediate = layer.intermediate,
                       .weights = &mlp.slots[index],
                       .max_batch_rows = flags.mlp_max_batch_tokens});
}

// The different shapes of all layers.
std::vector<MlpShape> MlpShapesOf(const MlpStore& mlps, const Flags& flags) {
  std::vector<MlpShape> shapes;
  for (const OfferedMlp& mlp : mlps.mlps()) {
    for (size_t index = 0; index < mlp.slots.size(); ++index) {
      const MlpLayer& layer = mlp.layers[index];
      const MlpShape shape{layer.hidden, layer.intermediate,
                           MostBatchRows(MlpModelOf(mlp, index, Op::kMlpBackward, flags))};
      if (std::find(shapes.begin(), shapes.end(), shape) == shapes.end()) shapes.push_back(shape);
    }
  }
  return shapes;
}

}  // namespace

std::vector<Model> MlpModelsOf(const MlpStore& mlps, const Flags& flags) {
  std::vector<Model> models;
  for (const OfferedMlp& mlp : mlps.mlps()) {
    for (size_t index = 0; index < mlp.slots.size(); ++index) {
      for (const Op op : {Op::kMlpForward, Op::kMlpBackward}) {
        models.push_back(MlpModelOf(mlp, index, op, flags));
      }
    }
  }
  return models;
}

ExecutorOptions ExecutorOptionsOf(const Flags& flags, const MlpStore& mlps, Observer* observer) {
  // Half of the budget is for slabs. Admission charges them with the size that the pool gives them.
  const int64_t pool_bytes = flags.memory_budget_bytes / 2 + kExecutorBytes;
  return {.device = flags.device,
          .ordinals = flags.devices,
          .lanes_per_device = flags.lanes_per_device,
          .memory = {.capacity_bytes = static_cast<size_t>(pool_bytes)},
          .takes_cuda_regions = flags.cuda_shared_memory,
          .region_prefix = flags.system_shared_memory_prefix,
          .mlp_shapes = MlpShapesOf(mlps, flags),
          .mlp_replicas = flags.mlp_replicas,
          .observer = observer};
}

ServerOptions ServerOptionsOf(const Flags& flags, bool on_gpu, int64_t max_connections) {
  return {.version = kVersion,
          .on_gpu = on_gpu,
          .admission = AdmissionOptionsOf(flags),
          .batching = {.max_queue_delay = absl::ToChronoNanoseconds(flags.max_queue_delay)},
          .infer = {flags.max_request_bytes},
          .stall_limit = {absl::ToChronoNanoseconds(flags.stall_timeout)},
          .log_peers = flags.log_peers,
          .max_metadata_bytes = flags.max_metadata_bytes,
          .reflection = flags.reflection,
          .regions = RegionLimitsOf(flags),
          .loads_weights = !flags.mlps.empty(),
          .rpc = RpcServerOptionsOf(flags, max_connections),
          .drain_delay = flags.drain_delay,
          .drain_timeout = flags.drain_timeout};
}

}  // namespace swiglu::server
