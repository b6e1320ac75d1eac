// SPDX-License-Identifier: Apache-2.0
//
// Makes the handler of a call, chosen by the path of its method. The table in here has all methods
// that this server answers.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>

#include "server/service/control_call.h"
#include "server/service/control_service.h"
#include "server/service/health.h"
#include "server/service/infer_dependencies.h"
#include "server/service/mlp_service.h"
#include "server/service/reflection.h"
#include "server/service/region_service.h"
#include "server/transport/call.h"

namespace swiglu::server {

struct RouterOptions {
  // The most bytes of metadata that a call may have; see Call::MetadataBytes. > 0.
  int64_t max_metadata_bytes = 32 << 10;
  // Calls that may be open at once. A further call is refused when its headers arrive. > 0.
  int64_t max_calls = 8192;
  // nullptr: this server does not offer reflection.
  const Reflection* reflection = nullptr;
  // nullptr, or disabled: this server takes no regions.
  const RegionService* regions = nullptr;
  // nullptr, or disabled: this server loads no weights on request.
  const MlpService* mlps = nullptr;
};

// Thread-safe: nothing but a counter changes after construction. All parts must outlive it and the
// handlers that it makes.
class Router final : public CallRouter {
 public:
  Router(InferDependencies infer, const ControlService* control, const Health* health,
         RouterOptions options = {});

  // CallRouter.
  std::unique_ptr<CallHandler> MakeHandler(Call& call, int64_t num_open) const override;

 private:
  // At this number of open calls, a further call of `path` is refused.
  int64_t MaxOpen(const std::string& path) const;
  // Makes the handler that refuses `call` without reading its message. Writes a log line about it.
  // An inference call is also reported as a request that ended.
  std::unique_ptr<CallHandler> Refuse(Call& call, absl::Status status) const;
  // Adds a method of `service` under `path`.
  template <typename Service, typename Request, typename Response>
  void Add(const Service* service, const std::string& path,
           absl::Status (Service::*method)(const Request&, Response*) const);
  // Adds a method of `service` that changes something, and is done later.
  template <typename Response, typename Service, typename Request>
  void AddChange(const Service* service, const std::string& path,
                 void (Service::*method)(Call&, const Request&, typename Service::Done) const);
  void AddRegionMethods();
  void AddMlpMethods();

  // Calls that were refused and still exist. They do not count as open.
  mutable std::atomic<int64_t> num_refused_{0};
  const InferDependencies infer_;
  const Health* const health_;
  const RouterOptions options_;
  std::unordered_map<std::string, ControlMethod> control_methods_;
  // Methods of the protocol that this server does not offer, with the reason.
  std::unordered_map<std::string, std::string> refused_methods_;
};

}  // namespace swiglu::server
