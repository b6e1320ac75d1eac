// SPDX-License-Identifier: Apache-2.0
//
// What only the CUDA executor does. All but the option checks need a device.
#include "server/device/cuda_executor.h"

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/synchronization/notification.h"
#include "server/gpu/cuda_probe.h"
#include "server/memory/pinned_memory.h"
#include "swiglu/cuda.h"
#include "tests/device/test_batch.h"

namespace swiglu::server {
namespace {

CudaExecutorOptions CudaOptions(std::vector<DeviceInfo> devices) {
  CudaExecutorOptions options;
  options.devices = std::move(devices);
  options.memory.capacity_bytes = size_t{512} << 20;
  return options;
}

Execution RunAndWait(Executor& executor, const Batch& batch) {
  Execution outcome;
  absl::Notification done;
  executor.Run(batch, [&](const Execution& execution) {
    outcome = execution;
    done.Notify();
  });
  done.WaitForNotification();
  return outcome;
}

// Writes down the reports of device errors. For one thread.
class ErrorRecorder final : public Observer {
 public:
  void RequestFinished(const RequestRecord&) override {}
  void RequestSent(const Model*, std::chrono::nanoseconds, std::chrono::nanoseconds) override {}
  void BatchFinished(const BatchRecord&) override {}
  void DeviceFailed(int device, DeviceError kind) override { errors.emplace_back(device, kind); }
  std::vector<std::pair<int, DeviceError>> errors;
};
using Errors = decltype(ErrorRecorder::errors);

TEST(CudaExecutorOptionsTest, RefusesNoDevicesAndNoLanes) {
  EXPECT_EQ(CreateCudaExecutor(CudaOptions({})).status(),
            absl::InvalidArgumentError("no CUDA device was named"));
  CudaExecutorOptions options = CudaOptions({{0, "any"}});
  options.lanes_per_device = 0;
  EXPECT_EQ(CreateCudaExecutor(options).status(),
            absl::InvalidArgumentError("a device needs at least 1 lane, not 0"));
}

TEST(CudaExecutorOptionsTest, AnOrdinalThatIsNotThereIsAnError) {
  const absl::Status status = CreateCudaExecutor(CudaOptions({{4096, "none"}})).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_EQ(status.message().substr(0, 13), "device 4096: ") << status;
}

class PinnedMemoryTest : public testing::Test {
 protected:
  // Pinning for device 3 fails twice in that way, and says so each time.
  void FailTwice(cudaError_t error, const absl::Status& status) {
    for (int i = 0; i < 2; ++i) EXPECT_EQ(PinningFailed(error, 4096, 3, faults_), status);
  }

  ErrorRecorder recorder_;
  DeviceFaults faults_{&recorder_};
};

TEST_F(PinnedMemoryTest, ReportsWhatCudaSays) {
  const auto memory = MakePinnedMemory(4096, &faults_);
  EXPECT_EQ(memory->Allocate(4096).status().code(), absl::StatusCode::kInternal);
  EXPECT_EQ(recorder_.errors, (Errors{{4096, DeviceError::kOther}}));
  EXPECT_EQ(faults_.failed_device(), std::nullopt);
}

TEST_F(PinnedMemoryTest, AStickyErrorIsTheEndOfTheDeviceAndToldOnce) {
  FailTwice(cudaErrorIllegalAddress,
            StickyStatus(3, "cudaErrorIllegalAddress: an illegal memory access was encountered"));
  EXPECT_EQ(recorder_.errors, (Errors{{3, DeviceError::kSticky}}));
  EXPECT_EQ(faults_.failed_device(), 3);
}

TEST_F(PinnedMemoryTest, NoMoreMemoryIsToldEachTimeAndNotForGood) {
  FailTwice(cudaErrorMemoryAllocation,
            absl::ResourceExhaustedError("the host has no 4096 bytes of memory left to pin"));
  EXPECT_EQ(recorder_.errors,
            (Errors{{3, DeviceError::kOutOfMemory}, {3, DeviceError::kOutOfMemory}}));
  EXPECT_EQ(faults_.failed_device(), std::nullopt);
}

class CudaExecutorTest : public testing::Test {
 protected:
  void SetUp() override {
    absl::StatusOr<std::vector<DeviceInfo>> devices = FindCudaDevices();
    if (!devices.ok()) GTEST_SKIP() << devices.status().message();
    devices_ = *devices;
  }

  std::unique_ptr<LaneExecutor> MustCreate(Observer* observer = nullptr) {
    CudaExecutorOptions options = CudaOptions(devices_);
    options.observer = observer;
    absl::StatusOr<std::unique_ptr<LaneExecutor>> executor = CreateCudaExecutor(options);
    EXPECT_TRUE(executor.ok()) << executor.status();
    return executor.ok() ? *std::move(executor) : nullptr;
  }

  std::vector<DeviceInfo> devices_;
};

TEST_F(CudaExecutorTest, HasTheLanesOfAllItsDevices) {
  const auto executor = MustCreate();
  ASSERT_NE(executor, nullptr);
  EXPECT_EQ(executor->num_lanes(), 2 * static_cast<int>(devices_.size()));
}

TEST_F(CudaExecutorTest, HasSlabsReadyBeforeTheFirstRequest) {
  const auto executor = MustCreate();
  ASSERT_NE(executor, nullptr);
  EXPECT_GT(executor->slab_pool().cached_bytes(), size_t{64} << 20);
  EXPECT_EQ(executor->slab_pool().used_bytes(), 0u);
}

// The kernel of `batch`'s first segment with everything in device memory, on the default stream.
std::vector<std::vector<std::byte>> ComputeInDeviceMemory(const Model& model, const Batch& batch) {
  const Segment& segment = batch.segments[0];
  const size_t tensor_bytes = segment.num_elements * ElementBytes(model.dtype);
  std::vector<std::byte*> d_inputs, d_outputs;
  for (size_t k = 0; k < model.inputs.size(); ++k) {
    void* d_data = nullptr;
    EXPECT_EQ(cudaMalloc(&d_data, tensor_bytes), cudaSuccess);
    EXPECT_EQ(cudaMemcpy(d_data, segment.inputs[k], tensor_bytes, cudaMemcpyDefault), cudaSuccess);
    d_inputs.push_back(static_cast<std::byte*>(d_data));
  }
  for (size_t k = 0; k < model.outputs.size(); ++k) {
    void* d_data = nullptr;
    EXPECT_EQ(cudaMalloc(&d_data, tensor_bytes), cudaSuccess);
    d_outputs.push_back(static_cast<std::byte*>(d_data));
  }
  const auto dtype = static_cast<swiglu::Dtype>(model.dtype);
  if (model.op == Op::kForward) {
    const swiglu::ForwardSegment one{d_inputs[0], d_inputs[1], d_outputs[0], segment.num_elements};
    EXPECT_EQ(swiglu::ForwardCuda(dtype, {&one, 1}, {}, nullptr), cudaSuccess);
  } else {
    const swiglu::BackwardSegment one{d_inputs[0],  d_inputs[1],  d_inputs[2],         d_outputs[0],
                                      d_outputs[1], d_outputs[2], segment.num_elements};
    EXPECT_EQ(swiglu::BackwardCuda(dtype, {&one, 1}, {}, nullptr), cudaSuccess);
  }
  std::vector<std::vector<std::byte>> outputs;
  for (std::byte* d_data : d_outputs) {
    outputs.emplace_back(tensor_bytes);
    EXPECT_EQ(cudaMemcpy(outputs.back().data(), d_data, tensor_bytes, cudaMemcpyDefault),
              cudaSuccess);
    cudaFree(d_data);
  }
  for (std::byte* d_data : d_inputs) cudaFree(d_data);
  return outputs;
}

TEST_F(CudaExecutorTest, EqualsTheKernelOnDeviceMemoryBitForBit) {
  const auto executor = MustCreate();
  ASSERT_NE(executor, nullptr);
  for (const Model& model : Models()) {
    const TestBatch test(executor->slab_pool(), model, {1000003});
    const auto expected = ComputeInDeviceMemory(model, test.batch());
    ASSERT_TRUE(RunAndWait(*executor, test.batch()).status.ok());
    for (size_t k = 0; k < expected.size(); ++k) {
      EXPECT_EQ(
          std::memcmp(expected[k].data(), test.batch().segments[0].outputs[k], expected[k].size()),
          0)
          << model.name << " output '" << model.outputs[k] << "'";
    }
  }
}

// The second of two large batches goes through copies; what it gives is as right.
TEST_F(CudaExecutorTest, StagesALargeBatchBesideALargeOne) {
  devices_.resize(1);
  const auto executor = MustCreate();
  ASSERT_NE(executor, nullptr);
  const Model& model = GetModel(Op::kForward, Dtype::kBf16);
  const TestBatch first(executor->slab_pool(), model, {7'000'001});
  const TestBatch second(executor->slab_pool(), model, {2'500'001}, OutputPlace::kInPlace, 2);
  Execution outcome;
  absl::Notification first_done;
  executor->Run(first.batch(), [&](const Execution& execution) {
    outcome = execution;
    first_done.Notify();
  });
  EXPECT_EQ(RunAndWait(*executor, second.batch()).path, Path::kStaged);
  first_done.WaitForNotification();
  EXPECT_EQ(outcome.path, Path::kMapped);
  first.ExpectRightOutputs();
  second.ExpectRightOutputs();
}

// A batch that takes long is not waited for before a short one on another lane is reported.
TEST_F(CudaExecutorTest, AShortBatchDoesNotWaitForALongOne) {
  const auto executor = MustCreate();
  ASSERT_NE(executor, nullptr);
  const Model& model = GetModel(Op::kForward, Dtype::kFp16);
  const TestBatch longer(executor->slab_pool(), model,
                         {int64_t{40} << 20});  // some 3 ms on the bus
  const TestBatch shorter(executor->slab_pool(), model, {100});
  std::atomic<bool> long_is_done{false};
  absl::Notification both_done;
  executor->Run(longer.batch(), [&](const Execution&) {
    long_is_done = true;
    both_done.Notify();
  });
  RunAndWait(*executor, shorter.batch());
  EXPECT_FALSE(long_is_done);
  both_done.WaitForNotification();
}

TEST_F(CudaExecutorTest, ReportsMemoryThatCannotBePinned) {
  ErrorRecorder recorder;
  DeviceFaults faults(&recorder);
  const auto memory = MakePinnedMemory(devices_.front().ordinal, &faults);
  EXPECT_EQ(
      memory->Allocate(size_t{1} << 50).status(),
      absl::ResourceExhaustedError("the host has no 1125899906842624 bytes of memory left to pin"));
  EXPECT_EQ(recorder.errors, (Errors{{devices_.front().ordinal, DeviceError::kOutOfMemory}}));
}

// Breaks device 0 for this process and leaves it: exit code 0 if everything is as it should be,
// else the step.
[[noreturn]] void BreakTheDeviceAndExit() {
  ErrorRecorder recorder;
  CudaExecutorOptions options = CudaOptions({{0, "device 0"}});
  options.observer = &recorder;
  absl::StatusOr<std::unique_ptr<LaneExecutor>> created = CreateCudaExecutor(options);
  if (!created.ok()) std::_Exit(2);
  std::unique_ptr<LaneExecutor> executor = *std::move(created);

  Segment nowhere;
  nowhere.inputs = {reinterpret_cast<std::byte*>(0x1000), reinterpret_cast<std::byte*>(0x2000)};
  nowhere.outputs = {reinterpret_cast<std::byte*>(0x3000)};
  nowhere.num_elements = 1000;
  const Batch batch{&GetModel(Op::kForward, Dtype::kFp16), {nowhere}};
  for (int i = 0; i < 3; ++i) {
    const Execution execution = RunAndWait(*executor, batch);
    std::fprintf(stderr, "%s\n", execution.status.ToString().c_str());
    const char* const expected = i == 0 ? "INTERNAL: device 0 failed"
                                        : "UNAVAILABLE: device 0 failed before the request ran";
    if (execution.status.ToString(absl::StatusToStringMode::kWithNoExtraData) != expected) {
      std::_Exit(3);
    }
    if (executor->healthy()) std::_Exit(4);
  }
  if (recorder.errors != Errors{{0, DeviceError::kSticky}}) std::_Exit(5);
  executor.reset();
  std::_Exit(0);
}

TEST_F(CudaExecutorTest, AStickyErrorFailsThisBatchAndAllLaterOnes) {
  // A fresh process: what it breaks stays broken.
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_EXIT(BreakTheDeviceAndExit(), testing::ExitedWithCode(0), "device 0 failed");
}

}  // namespace
}  // namespace swiglu::server
