// SPDX-License-Identifier: Apache-2.0
//
// Cuts a batch that was too large for the device's memory into smaller batches, and runs them. Does
// not use CUDA.
#pragma once

#include <functional>
#include <optional>
#include <utility>

#include "server/core/executor.h"
#include "server/device/lane.h"

namespace swiglu::server {

// A batch is halved at most this many times, so the smallest part is an eighth. If an eighth fails,
// too, the device's memory counts as exhausted.
inline constexpr int kMaxHalvings = 3;

// Splits `batch` into two batches with about equally many elements, in the same order. If a tensor
// is cut, both parts are aligned like the tensor. Returns nullopt if `batch` cannot be cut. A pure
// function. REQUIRES: no segment has a reader, and the batch is not of an MLP.
std::optional<std::pair<Batch, Batch>> Halve(const Batch& batch);

// Whether a batch that ended with `result` can be tried again in smaller parts: the device ran out
// of memory, and no output has been written. (An output may replace an input in memory.)
bool IsWorthRetrying(const LaneResult& result);

// Runs `batch`, which ended with `result`, again on `lane` as two halves, one after the other. If a
// half runs out of memory, too, it is halved again. Calls `on_retry` for each fault that is
// followed by such a retry. Any other error ends the run. Calls `finished` once at the end, with
// the sum of the times or with the error. REQUIRES: as for Lane::Run; IsWorthRetrying(result).
void RunInHalves(Lane& lane, const Batch& batch, const LaneResult& result,
                 std::function<void(const DeviceFault&)> on_retry, Lane::Finished finished);

}  // namespace swiglu::server
