// SPDX-License-Identifier: Apache-2.0
//
// An MLP in device memory with numbers that are made up, and what the tests of the MLP on CUDA
// share: tensors in device memory, comparisons and streams.
#pragma once

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "swiglu/cuda_mlp.h"
#include "swiglu/dtype.h"
#include "tests/kernels/cuda_mlp_reference.h"
#include "tests/kernels/cuda_runner.h"
#include "tests/kernels/patterns.h"

namespace swiglu::kernels {

// A tensor in device memory, every byte of it 0x55 at first.
template <class Element>
class DeviceTensor {
 public:
  explicit DeviceTensor(int64_t count)
      : count_(count), data_(AllocateOnDevice(std::max<size_t>(num_bytes(), 1))) {
    EXPECT_NE(data_, nullptr) << count << " elements";
    Reset();
  }
  void Reset(int byte = 0x55) { EXPECT_EQ(cudaMemset(get(), byte, num_bytes()), cudaSuccess); }
  Element* get() const { return reinterpret_cast<Element*>(data_.get()); }
  int64_t count() const { return count_; }
  size_t num_bytes() const { return static_cast<size_t>(count_) * sizeof(Element); }
  std::vector<Element> Read() const {
    std::vector<Element> read(static_cast<size_t>(count_));
    EXPECT_EQ(cudaMemcpy(read.data(), get(), num_bytes(), cudaMemcpyDeviceToHost), cudaSuccess);
    return read;
  }

 private:
  int64_t count_;
  std::shared_ptr<std::byte> data_;
};

using Elements = DeviceTensor<uint16_t>;  // FP16 or BF16
using Sums = DeviceTensor<float>;

struct Sizes {
  int hidden, intermediate;
};

// Consecutive tokens of an MLP.
struct Tokens {
  int first, count;
};

// Weights and inputs of an MLP for up to `max_tokens` tokens.
class Mlp {
 public:
  Mlp(Dtype dtype, Sizes sizes, int max_tokens, uint32_t special_in = 0)
      : dtype_(dtype),
        sizes_(sizes),
        max_tokens_(max_tokens),
        gate_(matrix_count()),
        up_(matrix_count()),
        down_(matrix_count()),
        gate_up_(2 * matrix_count()),
        x_(int64_t{max_tokens} * sizes.hidden),
        dy_(x_.count()) {
    const float by_hidden = 1.0f / std::sqrt(static_cast<float>(sizes.hidden));
    const float by_intermediate = 1.0f / std::sqrt(static_cast<float>(sizes.intermediate));
    Fill(gate_, {1, 4 * by_hidden, special_in});
    Fill(up_, {2, 2 * by_hidden, special_in});
    Fill(down_, {3, 2 * by_intermediate, special_in});
    Fill(x_, {4, 1.5f, 4 * special_in});
    Fill(dy_, {5, 1.5f, 4 * special_in});
    Copy({MlpMatrix::kGate, sizes.hidden, 0, sizes.intermediate, gate_.get()});
    Copy({MlpMatrix::kUp, sizes.hidden, 0, sizes.intermediate, up_.get()});
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  }

  Dtype dtype() const { return dtype_; }
  int hidden() const { return sizes_.hidden; }
  int intermediate() const { return sizes_.intermediate; }
  int64_t matrix_count() const { return int64_t{sizes_.hidden} * sizes_.intermediate; }
  int max_tokens() const { return max_tokens_; }
  const uint16_t* x(int token = 0) const { return x_.get() + int64_t{token} * hidden(); }
  const uint16_t* dy(int token = 0) const { return dy_.get() + int64_t{token} * hidden(); }
  CudaMlpWeights weights() const {
    return {dtype_, sizes_.hidden, sizes_.intermediate, gate_up_.get(), down_.get()};
  }

  // The first tokens, for the reference.
  CudaMlpProblem problem(int num_tokens) const {
    return {dtype_,      sizes_.hidden, sizes_.intermediate,
            num_tokens,  gate_.get(),   up_.get(),
            down_.get(), x_.get(),      dy_.get()};
  }

  std::string Describe() const {
    return std::string(Name(dtype_)) + " H=" + std::to_string(sizes_.hidden) +
           " I=" + std::to_string(sizes_.intermediate);
  }

 private:
  void Fill(const Elements& to, const MlpNumbers& numbers) const {
    EXPECT_EQ(FillMlp(dtype_, numbers, to.get(), to.count()), cudaSuccess);
  }
  void Copy(const MlpRows& rows) const {
    EXPECT_EQ(CopyGateUpCuda(rows, gate_up_.get(), nullptr), cudaSuccess);
  }

  const Dtype dtype_;
  const Sizes sizes_;
  const int max_tokens_;
  const Elements gate_, up_, down_, gate_up_, x_, dy_;
};

// Elements past the end of an output or a workspace that must stay as they are.
inline constexpr int64_t kGuards = 4096;

// Expects the same bits on the device.
void ExpectSame(Dtype dtype, const uint16_t* actual, const uint16_t* expected, int64_t count,
                const std::string& what);
void ExpectSame(const float* actual, const float* expected, int64_t count, const std::string& what);

// Why `path` cannot be tested, or nothing if it can.
std::string WhyNoMlpPath(MlpPath path);

std::string NameOfMlpPath(const testing::TestParamInfo<MlpPath>& info);

// A stream that does not wait for the default stream.
class Stream {
 public:
  Stream() { EXPECT_EQ(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), cudaSuccess); }
  ~Stream() { EXPECT_EQ(cudaStreamDestroy(stream_), cudaSuccess); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  cudaStream_t get() const { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

}  // namespace swiglu::kernels
