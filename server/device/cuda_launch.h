// SPDX-License-Identifier: Apache-2.0
//
// One kernel over segments as batching has them.
#pragma once

#include <cuda_runtime_api.h>

#include "absl/types/span.h"
#include "server/core/executor.h"

namespace swiglu::server {

// Enqueues the kernel of `model` over `segments` on `stream`, a stream of the current device, with
// `max_blocks` blocks at most, 0 for as many as the work wants. The pointers are readable and
// writable by the device. Does not synchronize. On error nothing has been enqueued. REQUIRES: at
// most kMaxSegments segments.
cudaError_t LaunchKernel(const Model& model, absl::Span<const Segment> segments, int max_blocks,
                         cudaStream_t stream);

}  // namespace swiglu::server
