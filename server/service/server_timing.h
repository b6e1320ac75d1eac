// SPDX-License-Identifier: Apache-2.0
//
// Tells the caller of ModelInfer how long its request waited and how long it was computed, if the
// caller asks for that. Pure.
#pragma once

#include <string>

#include "server/core/phase_times.h"
#include "server/inference/open_request.h"

namespace swiglu::server {

// The metadata with which a caller asks for the times, and the metadata that has them.
inline constexpr char kWantTimingMetadata[] = "swiglu-want-timing";
inline constexpr char kServerTimingMetadata[] = "server-timing";

// Whether the request behind `reply` was computed, so that its times say something.
bool HasServerTiming(const InferReply& reply);

// `times` in the form of the W3C's header Server-Timing: "queue;dur=0.013, compute;dur=0.205". The
// unit is the millisecond. Both values are rounded down, so that their sum never exceeds the time
// that the request took.
std::string ServerTiming(const PhaseTimes& times);

}  // namespace swiglu::server
