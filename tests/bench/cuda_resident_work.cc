// SPDX-License-Identifier: Apache-2.0
//
// Launches with an event behind each.
#include "tests/bench/cuda_resident_work.h"

#include <cstdint>

#include "swiglu/cuda.h"
#include "tests/bench/cuda_host.h"

namespace swiglu::bench {

CudaResidentWork::CudaResidentWork() {
  constexpr int kLaunches = 100;
  Check(cudaSetDevice(0));
  for (server::CudaMemory& d_tensor : d_tensors_) {
    void* d_data = nullptr;
    Check(cudaMalloc(&d_data, kTensorBytes));
    d_tensor.reset(static_cast<std::byte*>(d_data));
    Check(cudaMemset(d_data, 0x3C, kTensorBytes));
  }
  Check(cudaDeviceSynchronize());
  int lowest = 0, highest = 0;
  Check(cudaDeviceGetStreamPriorityRange(&lowest, &highest));
  cudaStream_t stream = nullptr;
  Check(cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, highest));
  stream_.reset(stream);
  for (int i = 0; i <= kLaunches; ++i) {
    cudaEvent_t event = nullptr;
    Check(cudaEventCreate(&event));
    events_.emplace_back(event);
  }
}

std::vector<double> CudaResidentWork::Run() {
  const ForwardSegment segment{d_tensors_[0].get(), d_tensors_[1].get(), d_tensors_[2].get(),
                               static_cast<int64_t>(kTensorBytes / 2)};
  Check(cudaSetDevice(0));
  Check(cudaEventRecord(events_[0].get(), stream_.get()));
  for (size_t i = 1; i < events_.size(); ++i) {
    Check(ForwardCuda(Dtype::kBf16, {&segment, 1}, {}, stream_.get()));
    Check(cudaEventRecord(events_[i].get(), stream_.get()));
  }
  Check(cudaStreamSynchronize(stream_.get()));
  std::vector<double> times;
  for (size_t i = 1; i < events_.size(); ++i) {
    float ms = 0;
    Check(cudaEventElapsedTime(&ms, events_[i - 1].get(), events_[i].get()));
    times.push_back(ms * 1e3);
  }
  return times;
}

}  // namespace swiglu::bench
