// SPDX-License-Identifier: Apache-2.0
//
// The RPC that reads the weights of an MLP anew.
#pragma once

#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "proto/inference.pb.h"
#include "server/core/mlp_reloader.h"
#include "server/core/model_registry.h"
#include "server/service/active_requests.h"
#include "server/transport/call.h"

namespace swiglu::server {

// Thread-safe.
class MlpService {
 public:
  using Done = absl::AnyInvocable<void(absl::Status)>;

  // `reloader` knows every MLP of `models`; nullptr: this server loads no weights on request.
  // `active` counts the calls that load, so that a drain waits until they have their answers.
  MlpService(const ModelRegistry* models, MlpReloader* reloader, ActiveRequests* active);

  bool is_enabled() const { return reloader_ != nullptr; }

  // Reads the weights of the MLP with the name in `request` anew. Calls `done` once: at once if the
  // request is wrong, else later, on the reloader's thread. If the caller goes away or its deadline
  // passes, the load ends. REQUIRES: is_enabled().
  void Load(Call& call, const inference::RepositoryModelLoadRequest& request, Done done) const;

 private:
  absl::Status Check(const inference::RepositoryModelLoadRequest& request) const;

  const ModelRegistry* const models_;
  MlpReloader* const reloader_;
  ActiveRequests* const active_;
  std::vector<std::string> mlps_;  // the names of the whole MLPs
};

}  // namespace swiglu::server
