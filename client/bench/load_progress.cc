// SPDX-License-Identifier: Apache-2.0
//
// The parts of a load, one after the other.
#include "client/bench/load_progress.h"

#include <string>

#include "absl/strings/str_format.h"
#include "client/bench/figures.h"

namespace swiglu::bench {
namespace {

cli::Progress OfTime(const char* what, Clock::duration passed, Clock::duration all) {
  return {what, Seconds(passed) / Seconds(all),
          absl::StrFormat("%.1f of %.1f s", Seconds(passed), Seconds(all))};
}

cli::Progress OfNumber(const Pace& pace, Clock::duration passed) {
  const auto num_started = static_cast<double>(pace.num_measured());
  const auto num_all = static_cast<double>(pace.options().num_requests);
  const double rate = passed > Clock::duration::zero() ? num_started / Seconds(passed) : 0;
  return {"measuring", num_started / num_all,
          absl::StrFormat("%.0f of %.0f requests, %.0f/s", num_started, num_all, rate)};
}

}  // namespace

cli::Progress ProgressOf(const Pace& pace, Clock::time_point now) {
  const PaceOptions& options = pace.options();
  if (now < pace.begin()) {
    return OfTime("warming up", now - (pace.begin() - options.warm_up), options.warm_up);
  }
  const bool is_over = pace.ends_by_number() ? pace.num_measured() >= options.num_requests
                                             : now >= pace.begin() + options.duration;
  if (is_over || pace.was_stopped()) return {"waiting for the last answers", -1, ""};
  if (pace.ends_by_number()) return OfNumber(pace, now - pace.begin());
  return OfTime("measuring", now - pace.begin(), options.duration);
}

}  // namespace swiglu::bench
