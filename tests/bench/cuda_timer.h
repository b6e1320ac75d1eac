// SPDX-License-Identifier: Apache-2.0
//
// Times work on a stream of its own, in microseconds by CUDA events.
#pragma once

#include <cuda_runtime_api.h>

#include <functional>

#include "tests/bench/report.h"

namespace swiglu::bench {

// The functions that are timed get the number of the call and launch on stream(). Ends the program
// at the first error.
class Timer {
 public:
  using Launch = std::function<void(int)>;

  Timer();
  ~Timer();
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;

  cudaStream_t stream() const { return stream_; }

  // Time of one call, by events around each of `count`.
  Summary Events(int count, const Launch& launch) const;

  // Time of one call inside a replayed graph of `count`: the device's share alone.
  Summary Graph(int count, const Launch& launch) const;

  // Time of one of `count` calls in a row, with nothing between them: a sustained rate.
  Summary InARow(int count, const Launch& launch) const;

 private:
  cudaStream_t stream_ = nullptr;
};

}  // namespace swiglu::bench
