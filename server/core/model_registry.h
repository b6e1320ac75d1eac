// SPDX-License-Identifier: Apache-2.0
//
// The models that a server offers. The server makes the registry at its start, and the parts that
// look models up or list them get it through their constructors.
#pragma once

#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "server/core/model.h"

namespace swiglu::server {

// Constant once it is made, so any thread may use it. Its models must outlive every batch, report
// and request: the registry must outlive the server.
class ModelRegistry {
 public:
  // The six models of `Models()` come first, then `others` in their order. Sets the index of each
  // of these. REQUIRES: no two models have the same name.
  explicit ModelRegistry(std::vector<Model> others = {});
  ModelRegistry(const ModelRegistry&) = delete;
  ModelRegistry& operator=(const ModelRegistry&) = delete;

  // Returns the model with that name, or nullptr.
  const Model* Find(absl::string_view name) const;

  // All models, in the order in which users see them. `models()[i]` has index i. Their addresses do
  // not change.
  absl::Span<const Model* const> models() const { return models_; }

 private:
  const std::vector<Model> others_;
  std::vector<const Model*> models_;
  absl::flat_hash_map<absl::string_view, const Model*> by_name_;
};

}  // namespace swiglu::server
