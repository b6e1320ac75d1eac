// SPDX-License-Identifier: Apache-2.0
//
// From options to a running executor, on whatever this machine has.
#include "server/device/device_factory.h"

#include <gtest/gtest.h>

#include <string>

#include "absl/strings/match.h"
#include "server/gpu/gpu_monitor.h"
#ifdef SWIGLU_CUDA
#include "server/gpu/cuda_probe.h"
#endif

namespace swiglu::server {
namespace {

ExecutorOptions Options(DeviceKind device) {
  ExecutorOptions options;
  options.device = device;
  options.memory.capacity_bytes = size_t{64} << 20;
  return options;
}

// Why this build and host have no CUDA; empty where they have.
std::string MissingCuda() {
#ifdef SWIGLU_CUDA
  return std::string(FindCudaDevices().status().message());
#else
  return "this build has no CUDA support";
#endif
}

TEST(DeviceFactoryTest, MakesACpuExecutorWithItsPool) {
  ExecutorOptions options = Options(DeviceKind::kCpu);
  options.lanes_per_device = 2;
  const absl::StatusOr<CreatedExecutor> created = CreateExecutor(options);
  ASSERT_TRUE(created.ok()) << created.status();
  EXPECT_EQ(created->executor->num_lanes(), 2);
  EXPECT_TRUE(absl::EndsWith(created->executor->description(), ", 2 lanes)"));
  EXPECT_EQ(created->reason, "cpu: asked for");
  EXPECT_TRUE(created->cuda_devices.empty());
  const absl::StatusOr<Slab> slab = created->executor->slab_pool().Acquire(5000);
  ASSERT_TRUE(slab.ok());
  EXPECT_EQ(created->slab_pool->used_bytes(), 8192u);
}

TEST(DeviceFactoryTest, GivesTheCpuALanePerCoreByDefault) {
  const absl::StatusOr<CreatedExecutor> created = CreateExecutor(Options(DeviceKind::kCpu));
  ASSERT_TRUE(created.ok());
  EXPECT_GE(created->executor->num_lanes(), 1);
}

TEST(DeviceFactoryTest, RefusesANegativeNumberOfLanes) {
  ExecutorOptions options = Options(DeviceKind::kCpu);
  options.lanes_per_device = -1;
  EXPECT_EQ(CreateExecutor(options).status(),
            absl::InvalidArgumentError("lanes per device cannot be -1"));
}

TEST(DeviceFactoryTest, AutoFallsBackToTheCpuWithAReason) {
  const std::string missing = MissingCuda();
  if (missing.empty()) GTEST_SKIP() << "this host has a CUDA device";
  const absl::StatusOr<CreatedExecutor> created = CreateExecutor(Options(DeviceKind::kAuto));
  ASSERT_TRUE(created.ok()) << created.status();
  EXPECT_EQ(created->reason, "cpu: " + missing);
  EXPECT_TRUE(absl::StartsWith(created->executor->description(), "cpu ("));
}

TEST(DeviceFactoryTest, CudaWithoutOneIsAnErrorThatNamesWhatIsMissing) {
  const std::string missing = MissingCuda();
  if (missing.empty()) GTEST_SKIP() << "this host has a CUDA device";
  const absl::Status status = CreateExecutor(Options(DeviceKind::kCuda)).status();
  EXPECT_EQ(status, absl::FailedPreconditionError("CUDA was asked for: " + missing));
}

TEST(DeviceFactoryTest, AutoTakesCudaWhereItIs) {
  if (const std::string missing = MissingCuda(); !missing.empty()) GTEST_SKIP() << missing;
  const absl::StatusOr<CreatedExecutor> created = CreateExecutor(Options(DeviceKind::kAuto));
  ASSERT_TRUE(created.ok()) << created.status();
  EXPECT_FALSE(created->cuda_devices.empty());
  EXPECT_TRUE(absl::StartsWith(created->reason, "cuda: device 0 ")) << created->reason;
  EXPECT_TRUE(absl::StrContains(created->reason, ", driver ")) << created->reason;
  EXPECT_TRUE(absl::StartsWith(created->executor->description(), "cuda:0 "));
  EXPECT_GT(CudaMemoryUsedBytes(0), 0);
}

TEST(DeviceFactoryTest, RefusesAnOrdinalBeyondTheHosts) {
  if (const std::string missing = MissingCuda(); !missing.empty()) GTEST_SKIP() << missing;
  ExecutorOptions options = Options(DeviceKind::kAuto);
  options.ordinals = {4096};
  const absl::Status status = CreateExecutor(options).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(absl::StartsWith(status.message(), "CUDA device 4096 does not exist; this host has "))
      << status;
}

TEST(DeviceFactoryTest, MemoryOfADeviceThatIsNotThereReadsZero) {
  EXPECT_EQ(CudaMemoryUsedBytes(4096), 0);
}

}  // namespace
}  // namespace swiglu::server
