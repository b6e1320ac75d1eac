// SPDX-License-Identifier: Apache-2.0
//
// What the inference calls of a server work with, unary ones and streams alike.
#pragma once

#include "server/batching/observer.h"
#include "server/rpc/active_requests.h"
#include "server/rpc/infer_service.h"
#include "server/rpc/message_watch.h"
#include "server/rpc/request_log.h"
#include "server/rpc/stall_limit.h"

namespace swiglu::server {

// All parts must outlive the calls.
struct InferParts {
  InferService* service = nullptr;
  ActiveRequests* active = nullptr;
  Observer* observer = nullptr;
  RequestLog* log = nullptr;
  StallLimit stall_limit;
  MessageWatch* watch = nullptr;
};

}  // namespace swiglu::server
