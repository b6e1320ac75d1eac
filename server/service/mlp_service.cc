// SPDX-License-Identifier: Apache-2.0
//
// From the protocol's message to the reloader. See the header.
#include "server/service/mlp_service.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "server/codec/errors.h"
#include "server/codec/mlp_errors.h"

namespace swiglu::server {
namespace {

// The first name of a parameter, so that the same request always gets the same error.
const std::string& FirstParameter(const inference::RepositoryModelLoadRequest& request) {
  const auto& parameters = request.parameters();
  return std::min_element(parameters.begin(), parameters.end(),
                          [](const auto& a, const auto& b) { return a.first < b.first; })
      ->first;
}

}  // namespace

MlpService::MlpService(const ModelRegistry* models, MlpReloader* reloader, ActiveRequests* active)
    : models_(models), reloader_(reloader), active_(active) {
  for (const Model* model : models->models()) {
    if (model->weights == nullptr) continue;
    if (mlps_.empty() || mlps_.back() != model->series) mlps_.push_back(model->series);
  }
}

void MlpService::Load(Call& call, const inference::RepositoryModelLoadRequest& request,
                      Done done) const {
  absl::Status status = Check(request);
  if (!status.ok()) return done(std::move(status));
  const std::string& mlp = request.model_name();
  reloader_->Reload(
      mlp, call.cancelled(),
      [mlp, token = ActiveRequests::Token(active_),
       done = std::move(done)](const std::optional<ReloadRefusal>& refusal) mutable {
        done(refusal.has_value() ? errors::ReloadRefused(mlp, *refusal) : absl::OkStatus());
      });
}

absl::Status MlpService::Check(const inference::RepositoryModelLoadRequest& request) const {
  if (!request.repository_name().empty()) {
    return errors::RepositoryNamed(request.repository_name());
  }
  if (!request.parameters().empty()) return errors::UnsupportedParameter(FirstParameter(request));
  const std::string& name = request.model_name();
  if (std::find(mlps_.begin(), mlps_.end(), name) != mlps_.end()) return absl::OkStatus();
  const Model* const model = models_->Find(name);
  return model == nullptr ? errors::UnknownMlp(name, mlps_) : errors::NotAWholeMlp(*model);
}

}  // namespace swiglu::server
