// SPDX-License-Identifier: Apache-2.0
//
// Launches one kernel over the segments of a batch.
#pragma once

#include <cuda_runtime_api.h>

#include "absl/types/span.h"
#include "server/core/executor.h"

namespace swiglu::server {

// Enqueues the kernel of `model` over `segments` on `stream`, a stream of the current device. The
// kernel has `max_blocks` blocks at most; 0 means as many as the work needs. Does not synchronize.
// On error nothing has been enqueued. REQUIRES: the device can read and write at the pointers; at
// most kMaxSegments segments.
cudaError_t LaunchKernel(const Model& model, absl::Span<const Segment> segments, int max_blocks,
                         cudaStream_t stream);

}  // namespace swiglu::server
