// SPDX-License-Identifier: Apache-2.0
//
// Keeps arrays by a clock that nobody sets.
#include "client/python/kept_arrays.h"

#include <chrono>
#include <cstddef>
#include <iterator>
#include <utility>
#include <vector>

namespace swiglu::python {
namespace {

using Clock = std::chrono::steady_clock;

// Longer than any batch takes.
constexpr std::chrono::minutes kLongestBatch{1};

constexpr size_t kMostKeptBytes = size_t{1} << 30;

// The outputs of one call.
struct Kept {
  Clock::time_point end;
  size_t size_bytes;
  std::vector<Array> outputs;
};

// In the order of their ends. The GIL guards it. It is not destroyed at the end of the process,
// because no array can be released then.
std::vector<Kept>& AllKept() {
  static auto* kept = new std::vector<Kept>();
  return *kept;
}

}  // namespace

void KeepForAMinute(std::vector<Array> outputs) {
  size_t size_bytes = 0;
  for (const Array& output : outputs) size_bytes += output.bytes().size();
  AllKept().push_back({Clock::now() + kLongestBatch, size_bytes, std::move(outputs)});
  DropKept();
}

void DropKept() {
  std::vector<Kept>& kept = AllKept();
  if (kept.empty()) return;
  size_t left_bytes = 0;
  for (const Kept& one : kept) left_bytes += one.size_bytes;
  const Clock::time_point now = Clock::now();
  auto first_left = kept.begin();
  while (first_left != kept.end()) {
    const bool is_last = std::next(first_left) == kept.end();
    const bool is_too_much = left_bytes > kMostKeptBytes && !is_last;
    if (first_left->end > now && !is_too_much) break;
    left_bytes -= first_left->size_bytes;
    ++first_left;
  }
  // Destroying an array may run Python code, which may come here again.
  const std::vector<Kept> dropped(std::make_move_iterator(kept.begin()),
                                  std::make_move_iterator(first_left));
  kept.erase(kept.begin(), first_left);
}

}  // namespace swiglu::python
