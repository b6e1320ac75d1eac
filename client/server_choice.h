// SPDX-License-Identifier: Apache-2.0
//
// What those who send a message again ask and tell about the servers.
#pragma once

#include "absl/time/time.h"
#include "swiglu/connection.h"

namespace swiglu::client {

// Thread-safe.
class ServerChoice {
 public:
  virtual ~ServerChoice() = default;

  virtual int num_servers() const = 0;

  // Whether a server outside of `tried` is not avoided now, or only because it was silent.
  virtual bool HasOther(const ServerSet& tried) = 0;

  // How long until the first of several servers that push back may be called again. Infinite if
  // none pushes back, or if there is one server alone.
  virtual absl::Duration TimeUntilOpen() = 0;

  // Avoids a server for a while if it has answered nothing since `since`. A message that others
  // have failed still goes there.
  virtual void AvoidIfSilent(int server, absl::Time since) = 0;
};

}  // namespace swiglu::client
