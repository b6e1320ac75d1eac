// SPDX-License-Identifier: Apache-2.0
//
// A batch over random tensors in one slab, which can tell whether its outputs are right.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <random>
#include <utility>
#include <vector>

#include "server/core/executor.h"
#include "server/core/model.h"
#include "server/core/slab.h"
#include "tests/device/reference.h"

namespace swiglu::server {

enum class OutputPlace { kOutOfPlace, kInPlace };

class TestBatch {
 public:
  // One segment per entry of `sizes`, all in a slab of `pool`.
  TestBatch(SlabPool& pool, const Model& model, const std::vector<int64_t>& sizes,
            OutputPlace placement = OutputPlace::kOutOfPlace, uint32_t seed = 1)
      : model_(model) {
    batch_ = {&model, {}};
    const size_t num_tensors =
        model.inputs.size() + (placement == OutputPlace::kInPlace ? 0 : model.outputs.size());
    size_t slab_bytes = kSlabAlignment;
    for (int64_t size : sizes) slab_bytes += num_tensors * TensorBytes(size);
    absl::StatusOr<Slab> slab = pool.Acquire(slab_bytes);
    if (!slab.ok()) {
      ADD_FAILURE() << slab.status();
      return;
    }
    slab_ = *std::move(slab);
    std::memset(slab_.data.get(), 0xFF, slab_.size_bytes);
    std::byte* next = slab_.data.get();
    const auto take = [&next, this](int64_t size) {
      return std::exchange(next, next + TensorBytes(size));
    };
    for (int64_t size : sizes) {
      Segment segment;
      segment.num_elements = size;
      for (size_t k = 0; k < model.inputs.size(); ++k) segment.inputs[k] = take(size);
      for (size_t k = 0; k < model.outputs.size(); ++k) {
        segment.outputs[k] = placement == OutputPlace::kInPlace
                                 ? const_cast<std::byte*>(segment.inputs[k])
                                 : take(size);
      }
      batch_.segments.push_back(segment);
    }
    FillInputs(seed);
  }

  const Batch& batch() const { return batch_; }

  // Whether every output is what the contract says for the inputs as they were.
  void ExpectRightOutputs() const {
    size_t input = 0;  // in inputs_
    for (size_t s = 0; s < batch_.segments.size(); ++s) {
      const Segment& segment = batch_.segments[s];
      for (int64_t i = 0; i < segment.num_elements; ++i) {
        const double* in = &inputs_[input];
        input += model_.inputs.size();
        const ReferenceElement want = model_.op == Op::kForward
                                          ? ReferenceForward(in[0], in[1], model_.dtype)
                                          : ReferenceBackward(in[0], in[1], in[2], model_.dtype);
        for (size_t k = 0; k < model_.outputs.size(); ++k) {
          const double got = LoadElement(segment.outputs[k], i, model_.dtype);
          const double tolerance = ReferenceTolerance(want.scales[k], model_.dtype);
          if (std::fabs(got - want.outputs[k]) <= tolerance) continue;
          ADD_FAILURE() << model_.name << " segment " << s << " element " << i << " output '"
                        << model_.outputs[k] << "' is " << got << "; expected " << want.outputs[k];
          return;
        }
      }
    }
  }

 private:
  // A tensor's place, up to the next one.
  size_t TensorBytes(int64_t num_elements) const {
    const size_t bytes = num_elements * ElementBytes(model_.dtype);
    return (bytes + kSlabAlignment - 1) / kSlabAlignment * kSlabAlignment;
  }

  void FillInputs(uint32_t seed) {
    std::mt19937 random(seed);
    std::uniform_real_distribution<double> uniform(-8, 8);
    for (const Segment& segment : batch_.segments) {
      for (int64_t i = 0; i < segment.num_elements; ++i) {
        for (size_t k = 0; k < model_.inputs.size(); ++k) {
          const double value = Round(uniform(random), model_.dtype);
          StoreElement(const_cast<std::byte*>(segment.inputs[k]), i, model_.dtype, value);
          inputs_.push_back(value);
        }
      }
    }
  }

  const Model& model_;
  Slab slab_;
  Batch batch_;
  std::vector<double> inputs_;  // element by element, in the order of the segments
};

}  // namespace swiglu::server
