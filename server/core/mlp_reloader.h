// SPDX-License-Identifier: Apache-2.0
//
// The interface through which the weights of an MLP are read anew while the server serves.
// `server/weights` implements it, and `server/service` has the method that calls it.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"

namespace swiglu::server {

// Why the weights of an MLP were not replaced.
enum class ReloadFault : uint8_t {
  kLoading,    // the load at the start of the server has not ended
  kUnderWay,   // another reload of the same MLP runs or waits
  kStopping,   // the server is about to end
  kCancelled,  // its caller has gone
  kFailed,     // the weights could not be read, or do not fit the models
};

// Why a reload was refused or has ended without new weights.
struct ReloadRefusal {
  ReloadFault fault = ReloadFault::kFailed;
  absl::Status status = absl::OkStatus();  // of kFailed: what is wrong
};

// Thread-safe.
class MlpReloader {
 public:
  // nullopt: the new weights are in use.
  using Done = absl::AnyInvocable<void(const std::optional<ReloadRefusal>&)>;

  virtual ~MlpReloader() = default;

  // Reads the weights of an MLP anew. All of its layers get the new weights at the same moment, or
  // none does. Does not block. Calls `done` exactly once: on the calling thread if the reload is
  // refused at once, else later on a thread of the reloader. Once `*cancelled` is true, the reload
  // ends soon, unless it is about to succeed. `mlp` is what MlpSeries returns for its name.
  // REQUIRES: the server has this MLP.
  virtual void Reload(const std::string& mlp, std::shared_ptr<const std::atomic<bool>> cancelled,
                      Done done) = 0;
};

}  // namespace swiglu::server
