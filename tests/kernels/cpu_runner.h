// SPDX-License-Identifier: Apache-2.0
//
// Runs the CPU kernels on one of Highway's targets, and lists those that this machine has.
#pragma once

#include <gtest/gtest.h>

#include <cstddef>
#include <cstring>
#include <memory>
#include <span>
#include <vector>

#include "hwy/targets.h"
#include "swiglu/cpu.h"
#include "tests/kernels/kernel_test.h"
#include "tests/kernels/runner.h"

namespace swiglu::kernels {

// While it lives, everything that Highway dispatches runs on its target. One at a time.
class ChosenTarget {
 public:
  explicit ChosenTarget(int64_t target) {
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
    EXPECT_STREQ(CpuTarget(), hwy::TargetName(target));
  }
  ~ChosenTarget() {
    hwy::SetSupportedTargetsForTest(0);
    hwy::GetChosenTarget().DeInit();
  }
  ChosenTarget(const ChosenTarget&) = delete;
  ChosenTarget& operator=(const ChosenTarget&) = delete;
};

class CpuRunner final : public Runner {
 public:
  explicit CpuRunner(int64_t target) : target_(target) {}

  void Run(Dtype dtype, std::span<const ForwardSegment> segments) override {
    EXPECT_EQ(ForwardCpu(dtype, segments), KernelStatus::kOk);
  }
  void Run(Dtype dtype, std::span<const BackwardSegment> segments) override {
    EXPECT_EQ(BackwardCpu(dtype, segments), KernelStatus::kOk);
  }

  std::shared_ptr<std::byte> Allocate(size_t num_bytes) override {
    const std::shared_ptr<Block[]> blocks(new Block[num_bytes / sizeof(Block) + 1]);
    return {blocks, blocks[0].bytes};
  }
  void CopyIn(std::byte* to, std::span<const std::byte> from) override {
    std::memcpy(to, from.data(), from.size());
  }
  void CopyOut(std::span<std::byte> to, const std::byte* from) override {
    std::memcpy(to.data(), from, to.size());
  }

 private:
  struct alignas(64) Block {
    std::byte bytes[64];
  };

  const ChosenTarget target_;
};

// One choice for each target that both the library and this machine have.
inline std::vector<RunnerChoice> EveryCpuTarget() {
  std::vector<RunnerChoice> choices;
  for (const int64_t target : hwy::SupportedAndGeneratedTargets()) {
    const auto create = [](int64_t argument) {
      return CreatedRunner{std::make_unique<CpuRunner>(argument), ""};
    };
    choices.push_back({hwy::TargetName(target), create, target});
  }
  return choices;
}

}  // namespace swiglu::kernels
