// SPDX-License-Identifier: Apache-2.0
//
// The large example of the source kernel through a server, by CUDA regions: forward, and backward
// in place, of (64, 8192, 14336) BF16, one RPC each. It prints the times beside the kernel's own,
// and compares samples of the results with the kernel's bits: both ends, and every border of 2^31
// elements. It needs 45 GB of a GPU that the server uses, too.
//
//   region_example SERVER [BATCH]     BATCH in place of 64, for smaller GPUs
#include <cuda_runtime_api.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "swiglu/client.h"
#include "swiglu/cuda.h"
#include "swiglu/cuda_shared_memory.h"
#include "swiglu/shared_memory.h"

namespace {

using swiglu::BackwardSegment;
using swiglu::Dtype;
using swiglu::ForwardSegment;
using swiglu::client::Client;
using swiglu::client::CudaRegion;
using swiglu::client::InputTensor;
using swiglu::client::OutputTensor;
using Clock = std::chrono::steady_clock;

constexpr int64_t kSample = 4096;  // elements
constexpr int kRounds = 5;

void Check(cudaError_t error) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "region_example: %s\n", cudaGetErrorString(error));
  std::exit(1);
}
void Check(const absl::Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "region_example: %s\n", status.ToString().c_str());
  std::exit(1);
}

std::byte* Allocate(int64_t size_bytes) {
  void* d_data = nullptr;
  Check(cudaMalloc(&d_data, size_bytes));
  return static_cast<std::byte*>(d_data);
}

// The tensors, three of `count` elements, and what is known of them.
struct Tensors {
  int64_t count;
  std::byte* d_data;

  std::byte* at(int k) const { return d_data + 2 * k * count; }
};

// Fills all tensors with copies of one block of small numbers, whose length is odd.
void Fill(const Tensors& tensors) {
  constexpr int64_t kBlock = (int64_t{1} << 20) + 1;
  std::vector<uint16_t> block(kBlock);
  uint32_t state = 1;
  for (uint16_t& value : block) {
    state = state * 1664525 + 1013904223;
    // Between 2^-3 and 4 in size.
    value = static_cast<uint16_t>((state >> 16 & 0x8000) | (0x3E00 + (state >> 8 & 0x27F)));
  }
  const int64_t total = 3 * tensors.count;
  Check(cudaMemcpy(tensors.d_data, block.data(), 2 * std::min(kBlock, total), cudaMemcpyDefault));
  for (int64_t done = kBlock; done < total; done *= 2) {
    Check(cudaMemcpy(tensors.d_data + 2 * done, tensors.d_data, 2 * std::min(done, total - done),
                     cudaMemcpyDefault));
  }
}

// Where samples begin: both ends, and across each border of 2^31 elements.
std::vector<int64_t> SamplePlaces(int64_t count) {
  std::vector<int64_t> places = {0, count - kSample};
  for (int64_t border = int64_t{1} << 31; border < count; border += int64_t{1} << 31) {
    places.push_back(std::min(border - kSample / 2, count - kSample));
  }
  return places;
}

// The samples of one tensor.
std::vector<char> Samples(const Tensors& tensors, int k) {
  std::vector<char> samples;
  for (const int64_t place : SamplePlaces(tensors.count)) {
    samples.resize(samples.size() + 2 * kSample);
    Check(cudaMemcpy(samples.data() + samples.size() - 2 * kSample, tensors.at(k) + 2 * place,
                     2 * kSample, cudaMemcpyDefault));
  }
  return samples;
}

double Seconds(Clock::duration time) { return std::chrono::duration<double>(time).count(); }

// The median time of `run`, which is run before each time with `prepare`.
template <typename Prepare, typename Run>
double Median(Prepare prepare, Run run) {
  std::vector<double> times;
  for (int i = 0; i < kRounds; ++i) {
    prepare();
    Check(cudaDeviceSynchronize());
    const Clock::time_point start = Clock::now();
    run();
    times.push_back(Seconds(Clock::now() - start));
  }
  std::sort(times.begin(), times.end());
  return times[kRounds / 2];
}

void Report(const char* what, double kernel, double service, int64_t bytes, bool is_equal) {
  std::printf("%s: kernel %.3f ms (%.0f GB/s), service %.3f ms (%+.3f ms, %+.1f %%), samples %s\n",
              what, kernel * 1e3, bytes / kernel / 1e9, service * 1e3, (service - kernel) * 1e3,
              (service / kernel - 1) * 100, is_equal ? "equal" : "DIFFERENT");
  if (!is_equal) std::exit(1);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: region_example SERVER [BATCH]\n");
    return 2;
  }
  swiglu::client::TuneProcess();
  const int64_t batch = argc > 2 ? std::atoll(argv[2]) : 64;
  const Tensors tensors{batch * 8192 * 14336, Allocate(6 * batch * 8192 * 14336)};
  auto client = Client::Create(argv[1]);
  Check(client.status());
  const int64_t bytes = 2 * tensors.count;
  auto region = CudaRegion::Create(*client, tensors.d_data, 3 * bytes);
  Check(region.status());
  const swiglu::client::Shape shape = {batch, 8192, 14336};
  const auto part = [&](int k) { return region->Part(k * bytes, bytes); };
  const auto input = [&](int k) { return InputTensor(Dtype::kBf16, shape, part(k)); };
  std::printf("(%lld, 8192, 14336) BF16, %.2f billion elements\n", static_cast<long long>(batch),
              tensors.count / 1e9);

  // Forward: tensors 0 and 1 are e and g, tensor 2 is h.
  Fill(tensors);
  const ForwardSegment forward{tensors.at(0), tensors.at(1), tensors.at(2), tensors.count};
  const double forward_kernel =
      Median([] {},
             [&] {
               Check(swiglu::ForwardCuda(Dtype::kBf16, {&forward, 1}, {}, nullptr));
               Check(cudaDeviceSynchronize());
             });
  const std::vector<char> forward_want = Samples(tensors, 2);
  Check(cudaMemset(tensors.at(2), 0xFF, bytes));
  const double forward_service =
      Median([] {}, [&] { Check(client->ForwardInto(input(0), input(1), part(2))); });
  Report("forward", forward_kernel, forward_service, 3 * bytes,
         Samples(tensors, 2) == forward_want);

  // Backward in place: tensors 0 to 2 are DW, e, g, and then h, df, de.
  const BackwardSegment backward{tensors.at(0), tensors.at(1), tensors.at(2), tensors.at(0),
                                 tensors.at(1), tensors.at(2), tensors.count};
  const auto fill = [&] { Fill(tensors); };
  const double backward_kernel = Median(fill, [&] {
    Check(swiglu::BackwardCuda(Dtype::kBf16, {&backward, 1}, {}, nullptr));
    Check(cudaDeviceSynchronize());
  });
  std::vector<std::vector<char>> want;
  for (int k = 0; k < 3; ++k) want.push_back(Samples(tensors, k));
  const double backward_service = Median(fill, [&] {
    Check(client->BackwardInto(input(0), input(1), input(2), {part(0), part(1), part(2)}));
  });
  bool is_equal = true;
  for (int k = 0; k < 3; ++k) is_equal &= Samples(tensors, k) == want[k];
  Report("backward in place", backward_kernel, backward_service, 6 * bytes, is_equal);
}
