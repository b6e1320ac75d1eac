// SPDX-License-Identifier: Apache-2.0
//
// Readiness and liveness, which grpc.health.v1, ServerReady, ServerLive and ModelReady report. Also
// the Watch call, which sends its caller every change.
#pragma once

#include <atomic>
#include <functional>
#include <optional>
#include <string>
#include <utility>

#include "proto/health.pb.h"
#include "server/service/control_call.h"

namespace swiglu::server {

// Thread-safe.
class Health {
 public:
  // `device_healthy` is called at every query; it must be thread-safe and quick.
  explicit Health(std::function<bool()> device_healthy)
      : device_healthy_(std::move(device_healthy)) {}

  // After this call the server is never ready again, so that load balancers send it no more
  // requests.
  void StopServing() { serving_.store(false, std::memory_order_relaxed); }

  bool serving() const { return serving_.load(std::memory_order_relaxed); }

  // Sets whether connections can be accepted. While they cannot, the server is not ready.
  void SetAccepting(bool accepting) { accepting_.store(accepting, std::memory_order_relaxed); }

  // Sets whether all weights are there. Until then the server is not ready.
  void SetLoaded(bool loaded) { loaded_.store(loaded, std::memory_order_relaxed); }
  bool loaded() const { return loaded_.load(std::memory_order_relaxed); }

  // True while requests are welcome.
  bool ready() const {
    return serving() && accepting_.load(std::memory_order_relaxed) && loaded() && live();
  }
  // False only when a device has failed for good.
  bool live() const { return device_healthy_(); }

  // The state of a service by name: "" and `inference.GRPCInferenceService` follow readiness, and
  // `liveness` follows liveness. SERVICE_UNKNOWN for any other name.
  grpc::health::v1::HealthCheckResponse::ServingStatus Check(const std::string& service) const;

 private:
  const std::function<bool()> device_healthy_;
  std::atomic<bool> serving_{true};
  std::atomic<bool> accepting_{true};
  std::atomic<bool> loaded_{true};
};

// The Watch call: sends the state, then every change of it.
class HealthWatchCall final : public SmallCall {
 public:
  // `health` must outlive it.
  HealthWatchCall(Call* call, const Health* health, const InferDependencies& parts)
      : SmallCall(call, parts), health_(health) {}

  void OnNoMessage() override;
  void OnWritten(bool ok) override;
  void OnServerEvent(ServerEvent event) override;

 private:
  void OnRequest(grpc::ByteBuffer& message) override;
  // Sends the state if it differs from the state that was sent last. Ends the call when the server
  // drains.
  void Advance();

  const Health* const health_;
  std::optional<std::string> service_;  // once the request is there
  std::optional<grpc::health::v1::HealthCheckResponse::ServingStatus> sent_;
  bool draining_ = false;
};

}  // namespace swiglu::server
