// SPDX-License-Identifier: Apache-2.0
//
// A load from threads that use the client library as programs do: one thread for each request under
// way, which blocks until the tensors are there.
#pragma once

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "client/bench/load.h"
#include "client/bench/request_data.h"

namespace swiglu::bench {

// Makes the client and the memory for answers. Tensors larger than a message are split by the
// library. INVALID_ARGUMENT for options that the library does not take. REQUIRES: `data` was made
// for `options` and outlives the load.
absl::StatusOr<std::unique_ptr<Load>> CreateLibraryLoad(const LoadOptions& options,
                                                        const std::vector<RequestData>* data);

}  // namespace swiglu::bench
