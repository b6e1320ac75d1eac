// SPDX-License-Identifier: Apache-2.0
//
// Sizes, alignments, places and numbers of segments, none of which changes a result: every element
// is that of one long, aligned, out of place call. Problem watches the bytes around each tensor.
#include <gtest/gtest.h>

#include <numeric>
#include <string>

#include "tests/kernels/kernel_test.h"
#include "tests/kernels/patterns.h"
#include "tests/kernels/problem.h"

namespace swiglu::kernels {
namespace {

GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(SegmentTest);

constexpr size_t kForwardInputs = 2, kBackwardInputs = 3;

testing::AssertionResult SameTensors(Dtype dtype, const Tensors& actual, const Tensors& expected) {
  for (size_t i = 0; i < expected.size(); ++i) {
    const testing::AssertionResult same = SameTensor(dtype, actual[i], expected[i]);
    if (!same) return testing::AssertionFailure() << "output " << i << ": " << same.message();
  }
  return testing::AssertionSuccess();
}

TEST_P(SegmentTest, ComputesEverySize) {
  std::vector<size_t> sizes(301);
  std::iota(sizes.begin(), sizes.end(), size_t{0});
  for (const size_t size : {1023, 1024, 1025, 2047, 2048, 2049, 4097, 65535, 65536, 99999}) {
    sizes.push_back(size);
  }
  for (const Dtype dtype : kDtypes) {
    for (const size_t num_inputs : {kForwardInputs, kBackwardInputs}) {
      const Tensors all = RandomTensors(dtype, num_inputs, sizes.back(), 4);
      const Tensors expected = Compute(dtype, all);
      for (const size_t size : sizes) {
        ASSERT_TRUE(SameTensors(dtype, Compute(dtype, Prefix(all, size)), Prefix(expected, size)))
            << size << " elements";
      }
    }
  }
}

TEST_P(SegmentTest, ComputesALargeOddSize) {
  const size_t num_elements = (size_t{1} << 22) + 3;
  Patterns e(num_elements);
  for (size_t i = 0; i < num_elements; ++i) e[i] = i % 65536;
  for (const Dtype dtype : kNarrowDtypes) {
    const uint32_t one = Nearest(dtype, 1.0);
    const Patterns f = Compute(dtype, {EveryPattern(), Repeated(65536, one)})[0];
    const Patterns h = Compute(dtype, {e, Repeated(num_elements, one)})[0];
    size_t num_differing = 0;
    for (size_t i = 0; i < num_elements; ++i) num_differing += !Same(dtype, h[i], f[i % 65536]);
    EXPECT_EQ(num_differing, 0u);
  }
}

TEST_P(SegmentTest, ComputesAtEveryCommonAlignment) {
  for (const Dtype dtype : kDtypes) {
    for (const size_t num_inputs : {kForwardInputs, kBackwardInputs}) {
      const Tensors inputs = RandomTensors(dtype, num_inputs, 2500, 5);
      const Tensors expected = Compute(dtype, inputs);
      for (size_t offset = 0; offset < 32; ++offset) {
        for (const size_t size : {size_t{1}, 7 + offset, size_t{83}, size_t{2500}}) {
          const Layout layout{std::vector<size_t>(6, offset), {}};
          ASSERT_TRUE(SameTensors(dtype, Compute(dtype, Prefix(inputs, size), layout),
                                  Prefix(expected, size)))
              << size << " elements at " << offset;
        }
      }
    }
  }
}

TEST_P(SegmentTest, ComputesWhereAlignmentsDiffer) {
  for (const Dtype dtype : kDtypes) {
    for (const size_t num_inputs : {kForwardInputs, kBackwardInputs}) {
      const Tensors inputs = RandomTensors(dtype, num_inputs, 2600, 6);
      const Tensors expected = Compute(dtype, inputs);
      const size_t num_tensors = num_inputs == kForwardInputs ? 3 : 6;
      for (size_t tensor = 0; tensor < num_tensors; ++tensor) {
        for (size_t offset = 1; offset < 9; ++offset) {
          // One tensor away from where all the others are.
          Layout layout{std::vector<size_t>(num_tensors, 3), {}};
          layout.offsets[tensor] += offset;
          const size_t size = offset % 2 != 0 ? 61 : 2600 - offset;
          ASSERT_TRUE(SameTensors(dtype, Compute(dtype, Prefix(inputs, size), layout),
                                  Prefix(expected, size)))
              << "tensor " << tensor << " moved by " << offset;
        }
      }
      const Layout all_differ{{1, 2, 3, 4, 5, 6}, {}};
      EXPECT_TRUE(SameTensors(dtype, Compute(dtype, inputs, all_differ), expected));
    }
  }
}

TEST_P(SegmentTest, ForwardInPlaceEqualsOutOfPlace) {
  for (const Dtype dtype : kDtypes) {
    for (const size_t size : {1, 77, 4099}) {
      const Tensors inputs = RandomTensors(dtype, kForwardInputs, size, 7);
      const Tensors expected = Compute(dtype, inputs);
      for (const int taken : {0, 1}) {
        for (const std::vector<size_t>& offsets : {std::vector<size_t>{0, 0}, {3, 3}, {1, 2}}) {
          ASSERT_TRUE(SameTensors(dtype, Compute(dtype, inputs, {offsets, {taken}}), expected))
              << size << " elements, h in input " << taken;
        }
      }
    }
  }
}

TEST_P(SegmentTest, BackwardWithAnyPairInPlaceEqualsOutOfPlace) {
  for (const Dtype dtype : kDtypes) {
    for (const size_t size : {1, 77, 4099}) {
      const Tensors inputs = RandomTensors(dtype, kBackwardInputs, size, 8);
      const Tensors expected = Compute(dtype, inputs);
      for (int pairs = 1; pairs < 8; ++pairs) {
        std::vector<int> in_place(3, Layout::kOwnBuffer);
        for (int i = 0; i < 3; ++i) {
          if ((pairs >> i & 1) != 0) in_place[static_cast<size_t>(i)] = i;
        }
        for (const std::vector<size_t>& offsets :
             {std::vector<size_t>{}, {5, 5, 5, 5, 5, 5}, {1, 2, 3, 4, 5, 6}}) {
          ASSERT_TRUE(SameTensors(dtype, Compute(dtype, inputs, {offsets, in_place}), expected))
              << size << " elements, pairs " << pairs;
        }
      }
    }
  }
}

// Sizes that mix the empty, the tiny and the large.
std::vector<size_t> MixedSizes(size_t num_segments) {
  const size_t cycle[] = {5, 0, 2048, 1, 2049, 33, 0, 8, 7000, 3, 255, 16};
  std::vector<size_t> sizes;
  for (size_t i = 0; i < num_segments; ++i) sizes.push_back(cycle[i % std::size(cycle)] + i / 12);
  return sizes;
}

TEST_P(SegmentTest, ComputesManySegmentsAsOneByOne) {
  for (const Dtype dtype : kDtypes) {
    for (const size_t num_inputs : {kForwardInputs, kBackwardInputs}) {
      for (const size_t num_segments : {1, 2, 16, 17, 256}) {
        std::vector<Tensors> inputs;
        inputs.reserve(num_segments);
        for (const size_t size : MixedSizes(num_segments)) {
          inputs.push_back(RandomTensors(dtype, num_inputs, size, 9 + inputs.size()));
        }
        const std::vector<Tensors> outputs = ComputeTogether(*runner_, dtype, inputs);
        for (size_t i = 0; i < inputs.size(); ++i) {
          ASSERT_TRUE(SameTensors(dtype, outputs[i], Compute(dtype, inputs[i])))
              << "segment " << i << " of " << num_segments;
        }
      }
    }
  }
}

TEST_P(SegmentTest, ComputesManyEmptySegmentsAroundOne) {
  for (const Dtype dtype : kDtypes) {
    std::vector<Tensors> inputs(40, RandomTensors(dtype, kForwardInputs, 0, 0));
    inputs[23] = RandomTensors(dtype, kForwardInputs, 100, 11);
    const std::vector<Tensors> outputs = ComputeTogether(*runner_, dtype, inputs);
    EXPECT_TRUE(SameTensors(dtype, outputs[23], Compute(dtype, inputs[23])));
  }
}

TEST_P(SegmentTest, DoesNothingWithoutSegmentsOrElements) {
  const ForwardSegment no_elements{nullptr, nullptr, nullptr, 0};
  const BackwardSegment no_gradients{nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, 0};
  for (const Dtype dtype : kDtypes) {
    runner_->Run(dtype, std::span<const ForwardSegment>());
    runner_->Run(dtype, std::span<const BackwardSegment>());
    runner_->Run(dtype, std::span<const ForwardSegment>(&no_elements, 1));
    runner_->Run(dtype, std::span<const BackwardSegment>(&no_gradients, 1));
  }
}

}  // namespace
}  // namespace swiglu::kernels
