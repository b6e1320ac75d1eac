// SPDX-License-Identifier: Apache-2.0
//
// The client that costs least. It encodes its requests beforehand, makes asynchronous calls on
// completion queues of its own, and looks only at the status and the size of an answer.
#pragma once

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "client/bench/load.h"
#include "client/bench/request_data.h"

namespace swiglu::bench {

// Opens the connections. An answer of a wrong size counts as INTERNAL. UNAVAILABLE, after 10 s, if
// the server cannot be reached. REQUIRES: `data` was made for `options` and outlives the load, and
// its requests are smaller than 2 GiB.
absl::StatusOr<std::unique_ptr<Load>> ConnectRawLoad(const LoadOptions& options,
                                                     const std::vector<RequestData>* data);

}  // namespace swiglu::bench
