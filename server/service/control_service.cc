// SPDX-License-Identifier: Apache-2.0
//
// The control methods, one after another in the order of the service definition.
#include "server/service/control_service.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "server/codec/errors.h"
#include "server/codec/infer_decoder.h"
#include "server/core/executor.h"
#include "server/core/model.h"
#include "server/core/weights.h"

namespace swiglu::server {
namespace {

std::string ToString(absl::string_view text) { return std::string(text); }

// For readers of the metadata and of the configuration, whose shapes cannot say it.
std::string ShapeRule(const Model& model) {
  if (!model.has_rows()) return "any rank and sizes; the same for all tensors of a request";
  const char* const rest =
      model.gradients.empty() ? "" : "; gradients of weights come only if a request names them";
  return absl::StrCat("any rank above 0; the last size is ", model.row_elements,
                      ", the others are any; the same for all tensors of a request", rest);
}

// `cpu`, or `cuda:0,cuda:1`.
std::string DevicesOf(const Weights& weights) {
  return absl::StrJoin(weights.places(), ",", [](std::string* out, const WeightsPlace& place) {
    out->append(place.device == kCpuDevice ? "cpu" : absl::StrCat("cuda:", place.device));
  });
}

// A tensor as users see it.
struct ShownTensor {
  absl::string_view name;
  Dtype dtype;
  absl::Span<const int64_t> shape;
};

ShownTensor ShownInput(const Model& model, absl::string_view name) {
  return {name, model.dtype, model.shown_shape};
}

ShownTensor ShownOutput(const Model& model, int output) {
  const GradientOutput* const gradient = model.FindGradient(output);
  if (gradient != nullptr) return {gradient->name, Dtype::kFp32, gradient->shape};
  return {model.OutputName(output), model.dtype, model.shown_shape};
}

void FillTensor(const ShownTensor& shown,
                inference::ModelMetadataResponse::TensorMetadata* tensor) {
  tensor->set_name(ToString(shown.name));
  tensor->set_datatype(ToString(DatatypeName(shown.dtype)));
  for (const int64_t dim : shown.shape) tensor->add_shape(dim);
}

template <typename Tensor>
void FillConfigTensor(const ShownTensor& shown, Tensor* tensor) {
  constexpr inference::DataType kTypes[] = {inference::TYPE_FP16, inference::TYPE_BF16,
                                            inference::TYPE_FP32};
  tensor->set_name(ToString(shown.name));
  tensor->set_data_type(kTypes[static_cast<int>(shown.dtype)]);
  for (const int64_t dim : shown.shape) tensor->add_dims(dim);
}

void FillDuration(const CountAndTime& figures, inference::StatisticDuration* duration) {
  duration->set_count(figures.count);
  duration->set_ns(figures.time.count());
}

void FillStatistics(const Model& model, const server::ModelStatistics& figures,
                    inference::ModelStatistics* out) {
  out->set_name(model.name);
  out->set_version("1");
  out->set_last_inference(
      std::chrono::duration_cast<std::chrono::milliseconds>(figures.last_success.time_since_epoch())
          .count());
  out->set_inference_count(figures.success.count);
  out->set_execution_count(figures.num_batches);
  auto* stats = out->mutable_inference_stats();
  FillDuration(figures.success, stats->mutable_success());
  FillDuration(figures.fail, stats->mutable_fail());
  FillDuration(figures.queue, stats->mutable_queue());
  FillDuration(figures.copy_in, stats->mutable_compute_input());
  FillDuration(figures.compute, stats->mutable_compute_infer());
  FillDuration(figures.copy_out, stats->mutable_compute_output());
  for (const auto& [size, times] : figures.by_batch_size) {
    auto* batch = out->add_batch_stats();
    batch->set_batch_size(size);
    FillDuration(times.copy_in, batch->mutable_compute_input());
    FillDuration(times.compute, batch->mutable_compute_infer());
    FillDuration(times.copy_out, batch->mutable_compute_output());
  }
}

const char* WhyNotReady(const Health& health) {
  if (!health.live()) return "a device has failed";
  return health.serving() && !health.loaded() ? "weights are being loaded" : "server is draining";
}

}  // namespace

absl::Status ControlService::ServerLive(const inference::ServerLiveRequest&,
                                        inference::ServerLiveResponse* response) const {
  response->set_live(health_->live());
  return absl::OkStatus();
}

absl::Status ControlService::ServerReady(const inference::ServerReadyRequest&,
                                         inference::ServerReadyResponse* response) const {
  response->set_ready(health_->ready());
  return absl::OkStatus();
}

absl::Status ControlService::ModelReady(const inference::ModelReadyRequest& request,
                                        inference::ModelReadyResponse* response) const {
  auto model = ResolveModel(request.name(), request.version(), *models_);
  // Asking after a model that is not there is no error; asking in words that make no sense is.
  if (absl::IsInvalidArgument(model.status())) return model.status();
  response->set_ready(model.ok() && health_->ready());
  return absl::OkStatus();
}

absl::Status ControlService::ServerMetadata(const inference::ServerMetadataRequest&,
                                            inference::ServerMetadataResponse* response) const {
  response->set_name("swiglu-server");
  response->set_version(options_.version);
  for (const char* extension : {"binary_tensor_data", "model_configuration", "parameters",
                                "schedule_policy", "statistics"}) {
    response->add_extensions(extension);
  }
  constexpr const char* kRegionExtensions[] = {"system_shared_memory", "cuda_shared_memory"};
  for (size_t kind = 0; kind < options_.regions.size(); ++kind) {
    if (options_.regions[kind]) response->add_extensions(kRegionExtensions[kind]);
  }
  return absl::OkStatus();
}

absl::Status ControlService::ModelMetadata(const inference::ModelMetadataRequest& request,
                                           inference::ModelMetadataResponse* response) const {
  auto model = ResolveModel(request.name(), request.version(), *models_);
  if (!model.ok()) return model.status();
  response->set_name((*model)->name);
  response->add_versions("1");
  response->set_platform((*model)->platform);
  for (const auto& name : (*model)->inputs) {
    FillTensor(ShownInput(**model, name), response->add_inputs());
  }
  for (int k = 0; k < (*model)->num_outputs(); ++k) {
    FillTensor(ShownOutput(**model, k), response->add_outputs());
  }
  auto& properties = *response->mutable_properties();
  properties["device"] = options_.device;
  properties["shape"] = ShapeRule(**model);
  properties.insert((*model)->properties.begin(), (*model)->properties.end());
  if ((*model)->weights != nullptr) {
    const std::shared_ptr<const Weights> weights = (*model)->weights->Get();
    if (weights != nullptr) {
      properties["weights_sha256"] = weights->sha256();
      if (!weights->places().empty()) properties["device"] = DevicesOf(*weights);
    }
  }
  return absl::OkStatus();
}

absl::Status ControlService::ModelConfig(const inference::ModelConfigRequest& request,
                                         inference::ModelConfigResponse* response) const {
  auto model = ResolveModel(request.name(), request.version(), *models_);
  if (!model.ok()) return model.status();
  auto* config = response->mutable_config();
  config->set_name((*model)->name);
  config->set_platform((*model)->platform);
  config->set_backend("swiglu");
  config->set_max_batch_size(0);
  config->mutable_version_policy()->mutable_specific()->add_versions(1);
  for (const auto& name : (*model)->inputs) {
    FillConfigTensor(ShownInput(**model, name), config->add_input());
  }
  for (int k = 0; k < (*model)->num_outputs(); ++k) {
    FillConfigTensor(ShownOutput(**model, k), config->add_output());
  }
  auto* group = config->add_instance_group();
  group->set_name("lanes");
  group->set_kind(options_.on_gpu ? inference::ModelInstanceGroup::KIND_GPU
                                  : inference::ModelInstanceGroup::KIND_CPU);
  group->set_count(options_.num_lanes);
  config->mutable_dynamic_batching()->set_max_queue_delay_microseconds(
      options_.max_queue_delay.count());
  (*config->mutable_parameters())["shape"].set_string_value(ShapeRule(**model));
  config->mutable_model_transaction_policy()->set_decoupled(false);
  return absl::OkStatus();
}

absl::Status ControlService::ModelStatistics(const inference::ModelStatisticsRequest& request,
                                             inference::ModelStatisticsResponse* response) const {
  if (request.name().empty()) {
    for (const Model* model : models_->models()) {
      FillStatistics(*model, statistics_->Get(*model), response->add_model_stats());
    }
    return absl::OkStatus();
  }
  auto model = ResolveModel(request.name(), request.version(), *models_);
  if (!model.ok()) return model.status();
  FillStatistics(**model, statistics_->Get(**model), response->add_model_stats());
  return absl::OkStatus();
}

absl::Status ControlService::RepositoryIndex(const inference::RepositoryIndexRequest& request,
                                             inference::RepositoryIndexResponse* response) const {
  const bool ready = health_->ready();
  if (request.ready() && !ready) return absl::OkStatus();
  for (const Model* model : models_->models()) {
    auto* entry = response->add_models();
    entry->set_name(model->name);
    entry->set_version("1");
    entry->set_state(ready ? "READY" : "UNAVAILABLE");
    if (!ready) entry->set_reason(WhyNotReady(*health_));
  }
  return absl::OkStatus();
}

absl::Status ControlService::HealthCheck(const grpc::health::v1::HealthCheckRequest& request,
                                         grpc::health::v1::HealthCheckResponse* response) const {
  const auto state = health_->Check(request.service());
  if (state == grpc::health::v1::HealthCheckResponse::SERVICE_UNKNOWN) {
    return errors::UnknownHealthService(request.service());
  }
  response->set_status(state);
  return absl::OkStatus();
}

}  // namespace swiglu::server
