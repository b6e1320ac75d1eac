// SPDX-License-Identifier: Apache-2.0
//
// Converts a batch's segments to the types of the kernels. Private to this folder.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>

#include "absl/types/span.h"
#include "server/core/executor.h"
#include "swiglu/segment.h"

namespace swiglu::server {

// Inputs and outputs are in the order of `Model::inputs` and `Model::outputs`.
inline void Convert(const Segment& from, swiglu::ForwardSegment& to) {
  to = {.e = from.inputs[0],
        .g = from.inputs[1],
        .h = from.outputs[0],
        .num_elements = from.num_elements};
}
inline void Convert(const Segment& from, swiglu::BackwardSegment& to) {
  to = {.dw = from.inputs[0],
        .e = from.inputs[1],
        .g = from.inputs[2],
        .h = from.outputs[0],
        .df = from.outputs[1],
        .de = from.outputs[2],
        .num_elements = from.num_elements};
}

// An array of up to kMaxSegments converted segments, meant for the stack. `KernelSegment` is
// ForwardSegment or BackwardSegment.
template <typename KernelSegment>
class SegmentTable {
 public:
  // Takes the first kMaxSegments of `segments`, or all if there are fewer.
  explicit SegmentTable(absl::Span<const Segment> segments)
      : size_(std::min<size_t>(segments.size(), swiglu::kMaxSegments)) {
    for (size_t i = 0; i < size_; ++i) Convert(segments[i], segments_[i]);
  }

  std::span<const KernelSegment> view() const { return {segments_, size_}; }

 private:
  size_t size_;
  KernelSegment segments_[swiglu::kMaxSegments];
};

}  // namespace swiglu::server
