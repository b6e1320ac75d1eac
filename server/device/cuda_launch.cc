// SPDX-License-Identifier: Apache-2.0
//
// From batching's types to those of the kernels.
#include "server/device/cuda_launch.h"

#include "server/device/segment_table.h"
#include "server/log/log.h"
#include "swiglu/cuda.h"

namespace swiglu::server {

cudaError_t LaunchKernel(const Model& model, absl::Span<const Segment> segments, int max_blocks,
                         cudaStream_t stream) {
  CHECK(segments.size() <= static_cast<size_t>(swiglu::kMaxSegments));
  CHECK(IsElementwise(model.op));
  const Dtype dtype = model.dtype;
  const swiglu::LaunchLimits limits{.max_blocks = max_blocks};
  if (model.op == Op::kForward) {
    const SegmentTable<swiglu::ForwardSegment> table(segments);
    return swiglu::ForwardCuda(dtype, table.view(), limits, stream);
  }
  const SegmentTable<swiglu::BackwardSegment> table(segments);
  return swiglu::BackwardCuda(dtype, table.view(), limits, stream);
}

}  // namespace swiglu::server
