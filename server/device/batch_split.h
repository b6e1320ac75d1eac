// SPDX-License-Identifier: Apache-2.0
//
// A batch that was too large for the device's memory, in smaller ones: how it is cut, and how the
// parts are run. Knows no CUDA.
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

// The elements of `batch` in two batches, in their order and about equally many in each; every
// tensor's part begins as aligned as the tensor does. None if there is nothing to cut. A pure
// function. REQUIRES: no segment has a reader.
std::optional<std::pair<Batch, Batch>> Halve(const Batch& batch);

// Whether what became of a batch can be tried again in smaller parts: the device's memory did not
// do, and no output has been written, which may lie where an input does.
bool IsWorthRetrying(const LaneResult& result);

// Runs `batch`, which came to `result`, in halves on `lane`, one after the other, and in halves of
// those where the memory does not do for them either; then calls `finished` once, with the sum of
// their times or with the first error, after which nothing more is run. `on_retry` is told of each
// fault that is tried again. REQUIRES: as for Lane::Run; IsWorthRetrying(result).
void RunInHalves(Lane& lane, const Batch& batch, const LaneResult& result,
                 std::function<void(const DeviceFault&)> on_retry, Lane::Finished finished);

}  // namespace swiglu::server
