// SPDX-License-Identifier: Apache-2.0
//
// The numbers of a report, and how they are shown.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "absl/strings/str_format.h"
#include "absl/types/optional.h"

namespace swiglu::bench {

inline double Seconds(std::chrono::nanoseconds time) {
  return std::chrono::duration<double>(time).count();
}

inline double Ms(std::chrono::nanoseconds time) { return Seconds(time) * 1e3; }

inline double Gb(int64_t bytes) { return static_cast<double>(bytes) / 1e9; }

// nullopt if `of` is 0.
inline absl::optional<double> Ratio(double amount, double of) {
  return of > 0 ? absl::make_optional(amount / of) : absl::nullopt;
}

// `number` with that many digits after the point; a dash for nullopt.
inline std::string Show(absl::optional<double> number, int num_digits) {
  return number ? absl::StrFormat("%.*f", num_digits, *number) : "-";
}

}  // namespace swiglu::bench
