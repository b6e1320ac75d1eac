// SPDX-License-Identifier: Apache-2.0
//
// How far a load has come, for the line that a user at a terminal sees.
#pragma once

#include "client/bench/pace.h"
#include "client/cli/progress_bar.h"

namespace swiglu::bench {

// The progress at `now` of the load that `pace` gives turns to: of its warm-up, then of its window,
// in seconds or in requests, and at last the wait for answers. Only a load that ends by a number of
// requests counts them while it runs, so only such a load has a rate.
cli::Progress ProgressOf(const Pace& pace, Clock::time_point now);

}  // namespace swiglu::bench
