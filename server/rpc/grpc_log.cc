// SPDX-License-Identifier: Apache-2.0
//
// gpr's log hook: what gRPC has to say becomes lines of ours.
#include "server/rpc/grpc_log.h"

#include <grpc/support/log.h>

#include <chrono>

#include "server/log/log.h"

namespace swiglu::server {

void RouteGrpcLog() {
  gpr_set_log_function([](gpr_log_func_args* line) {
    if (line->severity == GPR_LOG_SEVERITY_ERROR) {
      LOG_EVERY(WARNING, std::chrono::seconds(1), "gRPC: {}", line->message);
    } else {
      LOG(DEBUG, "gRPC: {}", line->message);
    }
  });
}

}  // namespace swiglu::server
