// SPDX-License-Identifier: Apache-2.0
//
// The parts of the server that the handlers of calls use.
#pragma once

#include "server/core/observer.h"
#include "server/inference/infer_service.h"
#include "server/service/active_requests.h"
#include "server/service/request_log.h"
#include "server/service/stall_limit.h"
#include "server/transport/message_watch.h"

namespace swiglu::server {

// All parts must outlive the calls.
struct InferDependencies {
  InferService* service = nullptr;
  ActiveRequests* active = nullptr;
  Observer* observer = nullptr;
  RequestLog* log = nullptr;
  StallLimit stall_limit;
  MessageWatch* watch = nullptr;
};

}  // namespace swiglu::server
