// SPDX-License-Identifier: Apache-2.0
//
// What a retry asks about the servers before it decides.
#pragma once

#include "absl/time/time.h"
#include "swiglu/connection.h"

namespace swiglu::client {

// Thread-safe.
class ServerChoice {
 public:
  virtual ~ServerChoice() = default;

  virtual int num_servers() const = 0;

  // Whether a server outside of `tried` is not avoided now.
  virtual bool HasOther(const ServerSet& tried) = 0;

  // How long until the first of several servers that push back may be called again. Infinite if
  // none pushes back, or if there is one server alone.
  virtual absl::Duration TimeUntilOpen() = 0;
};

}  // namespace swiglu::client
