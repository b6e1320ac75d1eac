// SPDX-License-Identifier: Apache-2.0
//
// Keeps arrays by the clock.
#include "client/python/kept_arrays.h"

#include <algorithm>
#include <iterator>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace swiglu::python {
namespace {

// Longer than any batch takes.
constexpr absl::Duration kLongestBatch = absl::Minutes(1);

struct Kept {
  absl::Time end;
  Array array;
};

// In the order of their ends. The GIL guards it. It is not destroyed at the end of the process,
// because no array can be released then.
std::vector<Kept>& AllKept() {
  static auto* kept = new std::vector<Kept>();
  return *kept;
}

}  // namespace

void KeepForAMinute(Array array) {
  DropKept();
  AllKept().push_back({absl::Now() + kLongestBatch, std::move(array)});
}

void DropKept() {
  std::vector<Kept>& kept = AllKept();
  if (kept.empty()) return;
  const absl::Time now = absl::Now();
  const auto first_left =
      std::find_if(kept.begin(), kept.end(), [now](const Kept& one) { return one.end > now; });
  // Destroying an array may run Python code, which may come here again.
  const std::vector<Kept> dropped(std::make_move_iterator(kept.begin()),
                                  std::make_move_iterator(first_left));
  kept.erase(kept.begin(), first_left);
}

}  // namespace swiglu::python
