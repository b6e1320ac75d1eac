// SPDX-License-Identifier: Apache-2.0
//
// The public class: results, and control calls. Client::Impl sends the operations.
#include "swiglu/client.h"

#include <malloc.h>
#include <stdlib.h>

#include <algorithm>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "client/client_impl.h"
#include "client/connection_pool.h"
#include "client/infer_call.h"
#include "google/protobuf/stubs/logging.h"
#include "proto/inference.pb.h"
#include "swiglu/client_mlp.h"

namespace swiglu::client {
namespace {

constexpr int kMaxConnections = 64;
constexpr int kMaxAttempts = 100;
constexpr int64_t kMinMessageBytes = 4096;
constexpr int64_t kMaxMessageBytes = (int64_t{1} << 31) - 1;

absl::Status CheckOptions(const Options& options) {
  if (options.timeout < absl::ZeroDuration()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "option timeout is ", absl::FormatDuration(options.timeout), "; it takes 0 or more"));
  }
  if (!(options.retry_budget >= 0 && options.retry_budget <= 1)) {
    return absl::InvalidArgumentError(
        absl::StrCat("option retry_budget is ", options.retry_budget, "; it takes 0 to 1"));
  }
  struct Range {
    const char* name;
    int64_t value, low, high;
  };
  for (const auto& [name, value, low, high] :
       {Range{"num_connections", options.num_connections, 0, kMaxConnections},
        Range{"max_message_bytes", options.max_message_bytes, kMinMessageBytes, kMaxMessageBytes},
        Range{"chunk_bytes", options.chunk_bytes, kMinMessageBytes, kMaxMessageBytes},
        Range{"max_attempts", options.max_attempts, 1, kMaxAttempts}}) {
    if (low <= value && value <= high) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("option ", name, " is ", value, "; it takes ", low, " to ", high));
  }
  return absl::OkStatus();
}

int DefaultConnections() {
  return std::clamp(static_cast<int>(std::thread::hardware_concurrency()), 1, 4);
}

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

absl::Status CheckForward(const TensorView& e, const TensorView& g) {
  const InputTensor e_input(e), g_input(g);
  return CheckInputs(ElementwiseCall("forward", {{"e", &e_input}, {"g", &g_input}}, {}));
}

absl::Status CheckBackward(const TensorView& dw, const TensorView& e, const TensorView& g) {
  const InputTensor dw_input(dw), e_input(e), g_input(g);
  return CheckInputs(
      ElementwiseCall("backward", {{"DW", &dw_input}, {"e", &e_input}, {"g", &g_input}}, {}));
}

Client::Client(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Client::~Client() = default;

absl::StatusOr<std::unique_ptr<Client>> Client::Create(absl::string_view address,
                                                       const Options& options) {
  const absl::StatusOr<std::vector<std::string>> addresses = SplitAddresses(address);
  if (!addresses.ok()) return addresses.status();
  const absl::Status status = CheckOptions(options);
  if (!status.ok()) return status;
  Options resolved = options;
  if (options.num_connections == 0) resolved.num_connections = DefaultConnections();
  resolved.chunk_bytes = std::min(options.chunk_bytes, options.max_message_bytes);
  // Not make_unique: the constructor is private.
  return std::unique_ptr<Client>(new Client(std::make_unique<Impl>(*addresses, resolved)));
}

absl::StatusOr<Tensor> Client::Forward(const TensorView& e, const TensorView& g,
                                       const CallOptions& options) {
  absl::Status status = CheckForward(e, g);
  if (!status.ok()) return status;
  Tensor h;
  status = MakeTensor("h", e.dtype, e.shape, &h);
  if (status.ok()) status = ForwardInto(e, g, h.mutable_bytes(), options);
  if (!status.ok()) return status;
  return h;
}

absl::StatusOr<BackwardResult> Client::Backward(const TensorView& dw, const TensorView& e,
                                                const TensorView& g, const CallOptions& options) {
  absl::Status status = CheckBackward(dw, e, g);
  if (!status.ok()) return status;
  BackwardResult result;
  status = MakeTensor("h", e.dtype, e.shape, &result.h);
  if (status.ok()) status = MakeTensor("df", e.dtype, e.shape, &result.df);
  if (status.ok()) status = MakeTensor("de", e.dtype, e.shape, &result.de);
  if (!status.ok()) return status;
  status = BackwardInto(
      dw, e, g, {result.h.mutable_bytes(), result.df.mutable_bytes(), result.de.mutable_bytes()},
      options);
  if (!status.ok()) return status;
  return result;
}

absl::Status Client::ForwardInto(const TensorView& e, const TensorView& g, absl::Span<std::byte> h,
                                 const CallOptions& options) {
  return ForwardInto(InputTensor(e), InputTensor(g), OutputTensor(h), options);
}

absl::Status Client::BackwardInto(const TensorView& dw, const TensorView& e, const TensorView& g,
                                  const BackwardOutputs& outputs, const CallOptions& options) {
  return BackwardInto(InputTensor(dw), InputTensor(e), InputTensor(g),
                      BackwardOutputTensors{outputs.h, outputs.df, outputs.de}, options);
}

absl::Status Client::ForwardInto(const InputTensor& e, const InputTensor& g, const OutputTensor& h,
                                 const CallOptions& options) {
  return impl_->Infer(ElementwiseCall("forward", {{"e", &e}, {"g", &g}}, {{"h", &h}}), options)
      .status();
}

absl::Status Client::BackwardInto(const InputTensor& dw, const InputTensor& e, const InputTensor& g,
                                  const BackwardOutputTensors& outputs,
                                  const CallOptions& options) {
  return impl_
      ->Infer(ElementwiseCall("backward", {{"DW", &dw}, {"e", &e}, {"g", &g}},
                              {{"h", &outputs.h}, {"df", &outputs.df}, {"de", &outputs.de}}),
              options)
      .status();
}

Mlp Client::Mlp(absl::string_view name, int layer) {
  return client::Mlp(impl_.get(), absl::StrCat("mlp_", name, "_", layer));
}

absl::StatusOr<bool> Client::ServerLive(const CallOptions& options) {
  auto response = impl_->Control<inference::ServerLiveResponse>(
      "ServerLive", inference::ServerLiveRequest(), options);
  if (!response.ok()) return response.status();
  return response->live();
}

absl::StatusOr<bool> Client::ServerReady(const CallOptions& options) {
  auto response = impl_->Control<inference::ServerReadyResponse>(
      "ServerReady", inference::ServerReadyRequest(), options);
  if (!response.ok()) return response.status();
  return response->ready();
}

absl::StatusOr<bool> Client::ModelReady(absl::string_view model, const CallOptions& options) {
  inference::ModelReadyRequest request;
  request.set_name(std::string(model));
  auto response = impl_->Control<inference::ModelReadyResponse>("ModelReady", request, options);
  if (!response.ok()) return response.status();
  return response->ready();
}

absl::StatusOr<ServerInfo> Client::ServerMetadata(const CallOptions& options) {
  auto response = impl_->Control<inference::ServerMetadataResponse>(
      "ServerMetadata", inference::ServerMetadataRequest(), options);
  if (!response.ok()) return response.status();
  return ServerInfo{response->name(),
                    response->version(),
                    {response->extensions().begin(), response->extensions().end()}};
}

absl::StatusOr<ModelInfo> Client::ModelMetadata(absl::string_view model,
                                                const CallOptions& options) {
  inference::ModelMetadataRequest request;
  request.set_name(std::string(model));
  auto response =
      impl_->Control<inference::ModelMetadataResponse>("ModelMetadata", request, options);
  if (!response.ok()) return response.status();
  return ModelInfo{response->name(),
                   response->platform(),
                   {response->versions().begin(), response->versions().end()},
                   ToTensors(response->inputs()),
                   ToTensors(response->outputs()),
                   {response->properties().begin(), response->properties().end()}};
}

absl::StatusOr<std::vector<ModelState>> Client::ListModels(const CallOptions& options) {
  auto response = impl_->Control<inference::RepositoryIndexResponse>(
      "RepositoryIndex", inference::RepositoryIndexRequest(), options);
  if (!response.ok()) return response.status();
  std::vector<ModelState> models;
  for (const auto& model : response->models()) {
    models.push_back({model.name(), model.version(), model.state(), model.reason()});
  }
  return models;
}

absl::StatusOr<std::vector<ModelCounters>> Client::ModelStatistics(absl::string_view model,
                                                                   const CallOptions& options) {
  inference::ModelStatisticsRequest request;
  request.set_name(std::string(model));
  auto response =
      impl_->Control<inference::ModelStatisticsResponse>("ModelStatistics", request, options);
  if (!response.ok()) return response.status();
  std::vector<ModelCounters> counters;
  for (const auto& statistics : response->model_stats()) {
    counters.push_back(ToCounters(statistics));
  }
  return counters;
}

absl::Status Client::RegisterSystemRegion(absl::string_view name, absl::string_view key,
                                          int64_t size_bytes, const CallOptions& options) {
  if (absl::Status status = impl_->CheckRegionsAllowed(); !status.ok()) return status;
  inference::SystemSharedMemoryRegisterRequest request;
  request.set_name(std::string(name));
  request.set_key(std::string(key));
  request.set_byte_size(static_cast<uint64_t>(size_bytes));
  return impl_
      ->Control<inference::SystemSharedMemoryRegisterResponse>("SystemSharedMemoryRegister",
                                                               request, options, size_bytes)
      .status();
}

absl::Status Client::RegisterCudaRegion(absl::string_view name, absl::string_view handle,
                                        int64_t device, int64_t size_bytes,
                                        const CallOptions& options) {
  if (absl::Status status = impl_->CheckRegionsAllowed(); !status.ok()) return status;
  inference::CudaSharedMemoryRegisterRequest request;
  request.set_name(std::string(name));
  request.set_raw_handle(std::string(handle));
  request.set_device_id(device);
  request.set_byte_size(static_cast<uint64_t>(size_bytes));
  return impl_
      ->Control<inference::CudaSharedMemoryRegisterResponse>("CudaSharedMemoryRegister", request,
                                                             options, size_bytes)
      .status();
}

absl::Status Client::UnregisterRegion(RegionKind kind, absl::string_view name,
                                      const CallOptions& options) {
  if (name.empty()) return absl::InvalidArgumentError("the name of a region is empty");
  return impl_->Unregister(kind, name, options);
}

absl::Status Client::UnregisterAllRegions(RegionKind kind, const CallOptions& options) {
  return impl_->Unregister(kind, "", options);
}

absl::StatusOr<std::vector<RegionInfo>> Client::ListRegions(RegionKind kind,
                                                            const CallOptions& options) {
  if (absl::Status status = impl_->CheckRegionsAllowed(); !status.ok()) return status;
  std::vector<RegionInfo> regions;
  const auto add = [&](const auto& region, int64_t device) {
    regions.push_back({region.name(), kind, static_cast<int64_t>(region.byte_size()), device});
  };
  if (kind == RegionKind::kSystem) {
    auto response = impl_->Control<inference::SystemSharedMemoryStatusResponse>(
        "SystemSharedMemoryStatus", inference::SystemSharedMemoryStatusRequest(), options);
    if (!response.ok()) return response.status();
    for (const auto& [name, region] : response->regions()) add(region, -1);
  } else {
    auto response = impl_->Control<inference::CudaSharedMemoryStatusResponse>(
        "CudaSharedMemoryStatus", inference::CudaSharedMemoryStatusRequest(), options);
    if (!response.ok()) return response.status();
    for (const auto& [name, region] : response->regions()) {
      add(region, static_cast<int64_t>(region.device_id()));
    }
  }
  std::sort(regions.begin(), regions.end(),
            [](const RegionInfo& a, const RegionInfo& b) { return a.name < b.name; });
  return regions;
}

}  // namespace swiglu::client
