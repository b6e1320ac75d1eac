// SPDX-License-Identifier: Apache-2.0
//
// The memory of problems, and the calls that compute them.
#include "tests/kernels/problem.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <utility>

namespace swiglu::kernels {
namespace {

constexpr size_t kGuardBytes = 64;
constexpr std::byte kGuard{0xA5};

bool AllGuards(std::span<const std::byte> bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == kGuard; });
}

// Runs the problems, all of which have the same number of inputs, in one call.
void RunTogether(Runner& runner, Dtype dtype, const std::vector<Problem>& problems, bool forward) {
  if (forward) {
    std::vector<ForwardSegment> segments;
    segments.reserve(problems.size());
    for (const Problem& problem : problems) segments.push_back(problem.forward());
    runner.Run(dtype, segments);
  } else {
    std::vector<BackwardSegment> segments;
    segments.reserve(problems.size());
    for (const Problem& problem : problems) segments.push_back(problem.backward());
    runner.Run(dtype, segments);
  }
}

}  // namespace

Problem::Problem(Runner& runner, Dtype dtype, Tensors inputs, const Layout& layout)
    : runner_(runner),
      dtype_(dtype),
      inputs_(std::move(inputs)),
      is_overwritten_(inputs_.size(), false) {
  const auto offset = [&](size_t i) { return i < layout.offsets.size() ? layout.offsets[i] : 0; };
  for (size_t i = 0; i < inputs_.size(); ++i) {
    input_buffers_.push_back(MakeBuffer(&inputs_[i], offset(i)));
  }
  const size_t num_outputs = inputs_.size() == 2 ? 1 : 3;
  for (size_t i = 0; i < num_outputs; ++i) {
    const int taken = i < layout.in_place.size() ? layout.in_place[i] : Layout::kOwnBuffer;
    if (taken == Layout::kOwnBuffer) {
      output_buffers_.push_back(MakeBuffer(nullptr, offset(inputs_.size() + i)));
    } else {
      output_buffers_.push_back(input_buffers_[static_cast<size_t>(taken)]);
      is_overwritten_[static_cast<size_t>(taken)] = true;
    }
  }
}

ForwardSegment Problem::forward() const {
  return {input_buffers_[0].data(), input_buffers_[1].data(), output_buffers_[0].data(),
          num_elements()};
}

BackwardSegment Problem::backward() const {
  return {input_buffers_[0].data(),
          input_buffers_[1].data(),
          input_buffers_[2].data(),
          output_buffers_[0].data(),
          output_buffers_[1].data(),
          output_buffers_[2].data(),
          num_elements()};
}

Tensors Problem::Read() const {
  for (size_t i = 0; i < inputs_.size(); ++i) {
    if (is_overwritten_[i]) continue;
    EXPECT_EQ(ReadBuffer(input_buffers_[i]), inputs_[i]) << "input " << i << " has changed";
  }
  Tensors outputs;
  for (const Buffer& buffer : output_buffers_) outputs.push_back(ReadBuffer(buffer));
  return outputs;
}

Problem::Buffer Problem::MakeBuffer(const Patterns* patterns, size_t offset) const {
  const size_t element_bytes = ElementBytes(dtype_);
  const size_t first_byte = kGuardBytes + offset * element_bytes;
  const size_t tensor_bytes = inputs_[0].size() * element_bytes;
  std::vector<std::byte> image(first_byte + tensor_bytes + kGuardBytes, kGuard);
  for (size_t i = 0; patterns != nullptr && i < patterns->size(); ++i) {
    // Little-endian, as everything here is: the low bytes come first.
    std::memcpy(&image[first_byte + i * element_bytes], &(*patterns)[i], element_bytes);
  }
  Buffer buffer{runner_.Allocate(image.size()), first_byte, image.size()};
  runner_.CopyIn(buffer.memory.get(), image);
  return buffer;
}

Patterns Problem::ReadBuffer(const Buffer& buffer) const {
  const size_t element_bytes = ElementBytes(dtype_);
  std::vector<std::byte> image(buffer.num_bytes);
  runner_.CopyOut(image, buffer.memory.get());
  const std::span<const std::byte> bytes = image;
  EXPECT_TRUE(AllGuards(bytes.first(buffer.first_byte))) << "written before a tensor";
  EXPECT_TRUE(AllGuards(bytes.last(kGuardBytes))) << "written after a tensor";
  Patterns patterns(inputs_[0].size(), 0);
  for (size_t i = 0; i < patterns.size(); ++i) {
    std::memcpy(&patterns[i], &image[buffer.first_byte + i * element_bytes], element_bytes);
  }
  return patterns;
}

Tensors Compute(Runner& runner, Dtype dtype, const Tensors& inputs, const Layout& layout) {
  std::vector<Problem> problems;
  problems.emplace_back(runner, dtype, inputs, layout);
  RunTogether(runner, dtype, problems, inputs.size() == 2);
  return problems[0].Read();
}

std::vector<Tensors> ComputeTogether(Runner& runner, Dtype dtype,
                                     const std::vector<Tensors>& inputs) {
  std::vector<Problem> problems;
  problems.reserve(inputs.size());
  for (const Tensors& tensors : inputs) problems.emplace_back(runner, dtype, tensors);
  RunTogether(runner, dtype, problems, inputs[0].size() == 2);
  std::vector<Tensors> outputs;
  outputs.reserve(problems.size());
  for (const Problem& problem : problems) outputs.push_back(problem.Read());
  return outputs;
}

Tensors RandomTensors(Dtype dtype, size_t num_inputs, size_t num_elements, uint32_t seed) {
  Tensors tensors;
  for (size_t i = 0; i < num_inputs; ++i) {
    tensors.push_back(RandomPatterns(dtype, num_elements, seed + static_cast<uint32_t>(i)));
  }
  return tensors;
}

Tensors Prefix(const Tensors& tensors, size_t num_elements) {
  Tensors prefix;
  for (const Patterns& patterns : tensors) {
    prefix.emplace_back(patterns.begin(),
                        patterns.begin() + static_cast<std::ptrdiff_t>(num_elements));
  }
  return prefix;
}

}  // namespace swiglu::kernels
