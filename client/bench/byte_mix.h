// SPDX-License-Identifier: Apache-2.0
//
// Mixes of sizes as the command line writes them, such as `64KiB*9,4MiB*1`.
#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace swiglu::bench {

// A size of requests, and its share of the mix: weight 2 is drawn twice as often as weight 1.
struct WeightedSize {
  int64_t bytes = 0;
  int64_t weight = 1;
};

// Reads `SIZE[*WEIGHT][,SIZE[*WEIGHT]]...`; a weight is 1 or more, and 1 if left out.
// INVALID_ARGUMENT naming the part that is wrong.
absl::StatusOr<std::vector<WeightedSize>> ParseByteMix(absl::string_view text);

// The inverse, without weights that are 1.
std::string FormatByteMix(const std::vector<WeightedSize>& mix);

// Draws sizes of a mix at random. Equal seeds give equal sizes. Not thread-safe.
class SizePicker {
 public:
  SizePicker(const std::vector<WeightedSize>& mix, uint32_t seed);

  // The index of a size in the mix.
  size_t Pick();

 private:
  std::minstd_rand random_;
  std::discrete_distribution<size_t> sizes_;
};

}  // namespace swiglu::bench
