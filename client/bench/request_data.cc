// SPDX-License-Identifier: Apache-2.0
//
// Fills tensors with copies of one block of random bits, in which all numbers have one exponent.
#include "client/bench/request_data.h"

#include <algorithm>
#include <cstring>
#include <random>
#include <vector>

namespace swiglu::bench {
namespace {

// A prime number of words, so that tensors of round sizes begin with different ones.
constexpr size_t kBlockWords = 131'071;
constexpr size_t kBlockBytes = kBlockWords * sizeof(uint64_t);

// For 64 bits: `kept` has the bits that stay random (signs and mantissas), `set` an exponent of -1.
struct Pattern {
  uint64_t kept;
  uint64_t set;
};

// By Dtype.
constexpr Pattern kPatterns[] = {{0x83ff83ff83ff83ff, 0x3800380038003800},
                                 {0x807f807f807f807f, 0x3f003f003f003f00},
                                 {0x807fffff807fffff, 0x3f0000003f000000}};

std::vector<uint64_t> RandomBlock(client::Dtype dtype) {
  std::mt19937_64 random;
  const Pattern& pattern = kPatterns[static_cast<int>(dtype)];
  std::vector<uint64_t> block(kBlockWords);
  for (uint64_t& word : block) word = (random() & pattern.kept) | pattern.set;
  return block;
}

}  // namespace

RequestData::RequestData(const Model* model, int64_t num_elements)
    : model_(model),
      num_elements_(num_elements),
      bytes_(std::make_unique_for_overwrite<std::byte[]>(static_cast<size_t>(input_bytes()))) {
  const std::vector<uint64_t> block = RandomBlock(model->dtype);
  const auto size = static_cast<size_t>(input_bytes());
  for (size_t done = 0; done < size; done += kBlockBytes) {
    std::memcpy(bytes_.get() + done, block.data(), std::min(kBlockBytes, size - done));
  }
}

absl::Span<const std::byte> RequestData::input(size_t k) const {
  const auto size = static_cast<size_t>(TensorBytes(*model_, num_elements_));
  return {bytes_.get() + k * size, size};
}

client::Inference RequestData::ToInference(size_t layer) const {
  client::Inference inference{.model = model_->names[layer],
                              .dtype = model_->dtype,
                              .shape = shape(),
                              .row_elements = model_->row_elements,
                              .inputs = {},
                              .outputs = {}};
  for (size_t k = 0; k < model_->inputs.size(); ++k) {
    inference.inputs.push_back({model_->inputs[k], input(k)});
  }
  return inference;
}

}  // namespace swiglu::bench
