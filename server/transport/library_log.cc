// SPDX-License-Identifier: Apache-2.0
//
// gRPC's log hook: what it has to say becomes lines of ours. Protobuf's is shut.
#include "server/transport/library_log.h"

#include <grpc/support/log.h>

#include <chrono>

#include "absl/strings/match.h"
#include "google/protobuf/stubs/logging.h"
#include "server/log/log.h"

namespace swiglu::server {

void RouteLibraryLogs() {
  gpr_set_log_function([](gpr_log_func_args* line) {
    if (absl::StartsWith(line->message, "assertion failed")) {
      LOG(ERROR, "gRPC: {}", line->message);  // the last line: it aborts
    } else if (line->severity == GPR_LOG_SEVERITY_ERROR) {
      LOG_EVERY(WARNING, std::chrono::seconds(1), "gRPC: {}", line->message);
    } else {
      LOG(DEBUG, "gRPC: {}", line->message);
    }
  });
  // What protobuf would say of a message, the caller is told.
  google::protobuf::SetLogHandler(nullptr);
}

void SilenceLibraryLogs() {
  gpr_set_log_function([](gpr_log_func_args*) {});
}

}  // namespace swiglu::server
