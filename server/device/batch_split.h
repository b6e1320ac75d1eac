// SPDX-License-Identifier: Apache-2.0
//
// Cuts a batch that was too large for the device's memory into smaller ones, and runs them. Knows
// no CUDA.
#pragma once

#include <functional>
#include <optional>
#include <utility>

#include "server/core/executor.h"
#include "server/device/lane.h"

namespace swiglu::server {

// How often a batch is halved before the device's memory counts as exhausted: an eighth is the
// least that is tried.
inline constexpr int kMaxHalvings = 3;

// Splits `batch` into two batches with about equally many elements, in the same order. In both, the
// parts of a tensor are aligned like the tensor itself. None if there is nothing to cut. A pure
// function. REQUIRES: no segment has a reader.
std::optional<std::pair<Batch, Batch>> Halve(const Batch& batch);

// Whether a batch that ended like this can be tried again in smaller parts: the device ran out of
// memory, and no output has been written. (An output may lie where an input does.)
bool IsWorthRetrying(const LaneResult& result);

// Runs `batch`, which ended with `result`, in halves on `lane`, one after the other. A half that
// runs out of memory, too, is halved again. Then calls `finished` once, with the sum of the times
// or with the first error. After an error nothing more is run. `on_retry` is called for each fault
// after which a batch is tried again. REQUIRES: as for Lane::Run; IsWorthRetrying(result).
void RunInHalves(Lane& lane, const Batch& batch, const LaneResult& result,
                 std::function<void(const DeviceFault&)> on_retry, Lane::Finished finished);

}  // namespace swiglu::server
