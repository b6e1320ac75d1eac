// SPDX-License-Identifier: Apache-2.0
//
// Work on tensors that lie in the device's own memory, to see what other work does to it.
#pragma once

#include <cstddef>
#include <vector>

#include "server/gpu/cuda_handles.h"

namespace swiglu::bench {

// Forward in BF16 on three tensors of 256 MiB on device 0, on a stream of the highest priority.
class CudaResidentWork {
 public:
  static constexpr size_t kTensorBytes = size_t{256} << 20;

  CudaResidentWork();

  // Launches the kernel a hundred times in a row and waits for the last: the time of each in
  // microseconds.
  std::vector<double> Run();

 private:
  server::CudaMemory d_tensors_[3];
  server::CudaStream stream_;
  std::vector<server::CudaEvent> events_;  // before the first launch and behind each
};

}  // namespace swiglu::bench
