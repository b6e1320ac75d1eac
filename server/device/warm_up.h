// SPDX-License-Identifier: Apache-2.0
//
// The first batches of a lane, before any request: they load every kernel and show that the device
// computes.
#pragma once

#include "absl/status/status.h"
#include "server/core/slab.h"
#include "server/device/lane.h"

namespace swiglu::server {

// Runs every model on `lane`, which is a lane of device `ordinal`. The inputs are zeros in a slab
// of `pool`. On the mapped path, the batches have one segment, several, or kMaxSegments. If the
// lane takes staged batches, also runs staged batches of one and of two segments. Waits for the
// results. Returns an error of the lane or of the pool, or INTERNAL if the outputs are not zeros.
absl::Status WarmUp(Lane& lane, int ordinal, SlabPool& pool, LaneUse use = LaneUse::kAny);

}  // namespace swiglu::server
