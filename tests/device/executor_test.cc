// SPDX-License-Identifier: Apache-2.0
//
// What every executor owes the batcher, asked of each one that this build has. Those for CUDA are
// skipped where there is no device.
#include "server/core/executor.h"

#include <gtest/gtest.h>

#include <atomic>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/synchronization/blocking_counter.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "server/device/cpu_executor.h"
#include "server/device/device_factory.h"
#include "tests/batching/mlp_models.h"
#include "tests/device/test_batch.h"

namespace swiglu::server {
namespace {

class ExecutorTest : public testing::TestWithParam<DeviceKind> {
 protected:
  static constexpr int kLanes = 3;

  void SetUp() override {
    absl::StatusOr<CreatedExecutor> created = Create();
    if (absl::IsFailedPrecondition(created.status())) GTEST_SKIP() << created.status().message();
    ASSERT_TRUE(created.ok()) << created.status();
    executor_ = std::move(created->executor);
  }

  static absl::StatusOr<CreatedExecutor> Create() {
    ExecutorOptions options;
    options.device = GetParam();
    options.lanes_per_device = kLanes;
    options.memory.capacity_bytes = size_t{512} << 20;
    options.memory.poison = uint8_t{0xFF};
    return CreateExecutor(options);
  }

  Execution RunAndWait(const Batch& batch) {
    Execution outcome;
    absl::Notification done;
    executor_->Run(batch, [&](const Execution& execution) {
      outcome = execution;
      done.Notify();
    });
    done.WaitForNotification();
    return outcome;
  }

  std::unique_ptr<Executor> executor_;
};

std::string KindName(const testing::TestParamInfo<DeviceKind>& info) {
  return info.param == DeviceKind::kCpu ? "Cpu" : "Cuda";
}

INSTANTIATE_TEST_SUITE_P(All, ExecutorTest, testing::Values(DeviceKind::kCpu, DeviceKind::kCuda),
                         KindName);

TEST_P(ExecutorTest, ComputesEveryModelOverSegmentsOfManySizes) {
  for (const Model& model : Models()) {
    const TestBatch test(executor_->slab_pool(), model, {1, 0, 7, 4096, 33333, 2});
    const Execution execution = RunAndWait(test.batch());
    ASSERT_TRUE(execution.status.ok()) << execution.status;
    test.ExpectRightOutputs();
  }
}

TEST_P(ExecutorTest, ComputesEveryModelInPlace) {
  for (const Model& model : Models()) {
    const TestBatch test(executor_->slab_pool(), model, {1000, 3}, OutputPlace::kInPlace);
    ASSERT_TRUE(RunAndWait(test.batch()).status.ok());
    test.ExpectRightOutputs();
  }
}

TEST_P(ExecutorTest, ComputesABatchOfTheMostSegments) {
  ASSERT_GE(executor_->max_segments(), 1);
  std::vector<int64_t> sizes(executor_->max_segments());
  for (size_t i = 0; i < sizes.size(); ++i) sizes[i] = static_cast<int64_t>(i % 13);
  const TestBatch test(executor_->slab_pool(), GetModel(Op::kBackward, Dtype::kBf16), sizes);
  ASSERT_TRUE(RunAndWait(test.batch()).status.ok());
  test.ExpectRightOutputs();
}

TEST(CpuExecutorTest, ComputesNoModelOfAnMlpUnlessTold) {
  const auto executor = CpuExecutor::Create({});
  ASSERT_TRUE(executor.ok()) << executor.status();
  const std::vector<Model> models = MlpModels("tiny", 1, 576);
  for (const Model& model : models) {
    EXPECT_DEATH((*executor)->Run({.model = &model}, [](const Execution&) {}),
                 "check failed: mlp_.has_value()");
  }
}

TEST_P(ExecutorTest, CompletesABatchWithoutSegmentsOrElements) {
  for (const Model& model : Models()) {
    EXPECT_TRUE(RunAndWait({.model = &model}).status.ok());
    EXPECT_TRUE(RunAndWait({&model, {Segment()}}).status.ok());
  }
}

TEST_P(ExecutorTest, ReportsItsPathAndTime) {
  const TestBatch test(executor_->slab_pool(), GetModel(Op::kForward, Dtype::kFp32), {100000});
  const Execution execution = RunAndWait(test.batch());
  EXPECT_EQ(execution.path, GetParam() == DeviceKind::kCpu ? Path::kCpu : Path::kMapped);
  EXPECT_GT(execution.times.compute.count(), 0);
  EXPECT_EQ(execution.times.copy_in.count(), 0);
  EXPECT_EQ(execution.times.copy_out.count(), 0);
}

TEST_P(ExecutorTest, IsHealthyAndDescribesItself) {
  EXPECT_TRUE(executor_->healthy());
  const std::string prefix = GetParam() == DeviceKind::kCpu ? "cpu (" : "cuda:0 ";
  EXPECT_EQ(executor_->description().substr(0, prefix.size()), prefix);
}

// A done that brings the next batch while all other lanes are busy, as the batcher's does: its lane
// must be free by then.
TEST_P(ExecutorTest, TakesTheNextBatchFromADone) {
  constexpr int kRoundsPerLane = 100;
  const int num_lanes = executor_->num_lanes();
  const Model& model = GetModel(Op::kForward, Dtype::kFp16);
  std::deque<TestBatch> tests;  // one a lane: no two may write the same memory
  for (int lane = 0; lane < num_lanes; ++lane) {
    tests.emplace_back(executor_->slab_pool(), model, std::vector<int64_t>{500});
  }
  std::atomic<int> num_done{0};
  absl::BlockingCounter chains(num_lanes);
  std::function<void(int, int)> run = [&](int lane, int num_left) {
    executor_->Run(tests[lane].batch(), [&, lane, num_left](const Execution& execution) {
      EXPECT_TRUE(execution.status.ok());
      ++num_done;
      // Nothing here is touched once the chain has ended.
      if (num_left == 1) return static_cast<void>(chains.DecrementCount());
      run(lane, num_left - 1);
    });
  };
  for (int lane = 0; lane < num_lanes; ++lane) run(lane, kRoundsPerLane);
  chains.Wait();
  EXPECT_EQ(num_done, kRoundsPerLane * num_lanes);
}

// Every lane kept busy by more threads than lanes; each batch is done once and right.
TEST_P(ExecutorTest, ServesManyThreads) {
  constexpr int kThreads = 8, kBatchesPerThread = 40;
  absl::Mutex mutex;
  int num_free = executor_->num_lanes();
  std::atomic<int> num_done{0};
  const auto send = [&](int thread) {
    for (int i = 0; i < kBatchesPerThread; ++i) {
      const Model& model = Models()[(thread + i) % Models().size()];
      const TestBatch test(executor_->slab_pool(), model, {i * 17, 3}, OutputPlace::kOutOfPlace, i);
      {
        const auto has_free = [&num_free] { return num_free > 0; };
        absl::MutexLock lock(&mutex);
        mutex.Await(absl::Condition(&has_free));
        --num_free;
      }
      absl::Notification done;
      executor_->Run(test.batch(), [&](const Execution& execution) {
        EXPECT_TRUE(execution.status.ok());
        ++num_done;
        {
          absl::MutexLock lock(&mutex);
          ++num_free;
        }
        done.Notify();
      });
      done.WaitForNotification();
      test.ExpectRightOutputs();
    }
  };
  std::vector<std::thread> threads;
  for (int thread = 0; thread < kThreads; ++thread) threads.emplace_back(send, thread);
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(num_done, kThreads * kBatchesPerThread);
}

TEST_P(ExecutorTest, DestructorWaitsForEveryBatchAndForWhatTheirDonesBring) {
  // The memory belongs to another executor, since a pool outlives its slabs.
  absl::StatusOr<CreatedExecutor> second = Create();
  ASSERT_TRUE(second.ok()) << second.status();
  Executor* const busy = second->executor.get();

  std::deque<TestBatch> tests;
  for (int i = 0; i < busy->num_lanes(); ++i) {
    tests.emplace_back(executor_->slab_pool(), GetModel(Op::kBackward, Dtype::kFp32),
                       std::vector<int64_t>{300000 + i});
  }
  std::atomic<int> num_done{0};
  for (const TestBatch& test : tests) {
    busy->Run(test.batch(), [&num_done, busy, &test](const Execution&) {
      ++num_done;
      busy->Run(test.batch(), [&num_done](const Execution&) { ++num_done; });
    });
  }
  const int expected = 2 * busy->num_lanes();
  second->executor.reset();
  EXPECT_EQ(num_done, expected);
}

}  // namespace
}  // namespace swiglu::server
