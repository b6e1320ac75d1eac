// SPDX-License-Identifier: Apache-2.0
//
// One segment with memory of its own between guard bytes: a forward problem if it has two inputs, a
// backward problem if it has three.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "swiglu/dtype.h"
#include "swiglu/segment.h"
#include "tests/kernels/patterns.h"
#include "tests/kernels/runner.h"

namespace swiglu::kernels {

// e and g, or dw, e and g; and as outputs h, or h, df and de.
using Tensors = std::vector<Patterns>;

// Where the tensors of a problem lie.
struct Layout {
  static constexpr int kOwnBuffer = -1;

  // Offsets in elements from a 64-byte boundary, inputs first; those left out are 0. An output that
  // lies in an input has none.
  std::vector<size_t> offsets;
  // For each output the index of the input whose buffer it takes, or kOwnBuffer. Left out: all own.
  std::vector<int> in_place;
};

class Problem {
 public:
  // Lays out the inputs, which are of one size. `runner` must live as long.
  Problem(Runner& runner, Dtype dtype, Tensors inputs, const Layout& layout = {});

  ForwardSegment forward() const;
  BackwardSegment backward() const;

  // Returns the outputs. Fails the running test if a guard byte, or an input that no output took,
  // has changed.
  Tensors Read() const;

 private:
  // A tensor's memory: guard bytes, the elements, guard bytes.
  struct Buffer {
    std::shared_ptr<std::byte> memory;
    size_t first_byte;
    size_t num_bytes;  // guards included

    std::byte* data() const { return memory.get() + first_byte; }
  };

  // Elements without patterns are left as guard bytes.
  Buffer MakeBuffer(const Patterns* patterns, size_t offset) const;
  Patterns ReadBuffer(const Buffer& buffer) const;
  int64_t num_elements() const { return static_cast<int64_t>(inputs_[0].size()); }

  Runner& runner_;
  const Dtype dtype_;
  const Tensors inputs_;
  std::vector<Buffer> input_buffers_;
  std::vector<Buffer> output_buffers_;  // shares memory with an input's if in place
  std::vector<bool> is_overwritten_;    // by input
};

// Computes one problem.
Tensors Compute(Runner& runner, Dtype dtype, const Tensors& inputs, const Layout& layout = {});

// Computes problems of one kind in one call and returns the outputs of each.
std::vector<Tensors> ComputeTogether(Runner& runner, Dtype dtype,
                                     const std::vector<Tensors>& inputs);

// Two or three tensors of random patterns.
Tensors RandomTensors(Dtype dtype, size_t num_inputs, size_t num_elements, uint32_t seed);

// The first elements of each tensor.
Tensors Prefix(const Tensors& tensors, size_t num_elements);

}  // namespace swiglu::kernels
