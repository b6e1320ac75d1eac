// SPDX-License-Identifier: Apache-2.0
//
// The client that costs least: requests encoded beforehand, asynchronous calls on completion queues
// of its own, answers looked at for their status and size alone.
#pragma once

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "client/bench/load.h"
#include "client/bench/request_data.h"

namespace swiglu::bench {

// Opens the connections. An answer whose size cannot be right will count as INTERNAL. UNAVAILABLE,
// after 10 s, if the server cannot be reached. REQUIRES: `data` is that of `options` and outlives
// the load, and its requests are smaller than 2 GiB.
absl::StatusOr<std::unique_ptr<Load>> ConnectRawLoad(const LoadOptions& options,
                                                     const std::vector<RequestData>* data);

}  // namespace swiglu::bench
