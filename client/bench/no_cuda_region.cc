// SPDX-License-Identifier: Apache-2.0
//
// The memory of a GPU, in builds without CUDA.
#include "client/bench/shared_region.h"

namespace swiglu::bench {

const bool kHasCuda = false;

absl::StatusOr<std::unique_ptr<SharedRegion>> CreateCudaRegion(const client::Client&, int64_t) {
  return absl::UnimplementedError("this program is built without CUDA");
}

}  // namespace swiglu::bench
