// SPDX-License-Identifier: Apache-2.0
//
// Mixes of request sizes, written as on the command line: `64KiB*9,4MiB*1`.
#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace swiglu::bench {

// A request size and its weight. A size of weight 2 is drawn twice as often as one of weight 1.
struct WeightedSize {
  int64_t bytes = 0;
  int64_t weight = 1;
};

// Reads `SIZE[*WEIGHT][,SIZE[*WEIGHT]]...`. A weight is 1 or more; without `*WEIGHT` it is 1.
// INVALID_ARGUMENT, with the wrong part in the message.
absl::StatusOr<std::vector<WeightedSize>> ParseByteMix(absl::string_view text);

// The inverse of ParseByteMix. Leaves out weights that are 1.
std::string FormatByteMix(const std::vector<WeightedSize>& mix);

// Draws sizes of a mix at random. Equal mixes and seeds give equal sizes. Not thread-safe.
class SizePicker {
 public:
  SizePicker(const std::vector<WeightedSize>& mix, uint32_t seed);

  // Draws a size, and returns its index in the mix.
  size_t Pick();

 private:
  std::minstd_rand random_;
  std::discrete_distribution<size_t> sizes_;
};

}  // namespace swiglu::bench
