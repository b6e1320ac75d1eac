// SPDX-License-Identifier: Apache-2.0
//
// Puts the models in order and makes the index of their names.
#include "server/core/model_registry.h"

#include <utility>

#include "server/log/log.h"

namespace swiglu::server {
namespace {

std::vector<Model> Numbered(std::vector<Model> models, int first_index) {
  for (Model& model : models) model.index = first_index++;
  return models;
}

}  // namespace

ModelRegistry::ModelRegistry(std::vector<Model> others)
    : others_(Numbered(std::move(others), static_cast<int>(Models().size()))) {
  for (const Model& model : Models()) models_.push_back(&model);
  for (const Model& model : others_) models_.push_back(&model);
  for (const Model* model : models_) {
    const bool is_new = by_name_.emplace(model->name, model).second;
    CHECK(is_new);
  }
}

const Model* ModelRegistry::Find(absl::string_view name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : found->second;
}

}  // namespace swiglu::server
