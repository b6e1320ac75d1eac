// SPDX-License-Identifier: Apache-2.0
//
// Statistics: what counts where.
#include "server/core/statistics.h"

#include <gtest/gtest.h>

#include "tests/batching/mlp_models.h"

namespace swiglu::server {
namespace {

using std::chrono::nanoseconds;

TEST(StatisticsTest, ASuccessCountsInEveryPhaseOfItsModel) {
  Statistics statistics{ModelRegistry()};
  const Model& model = *FindModel("swiglu_forward_bf16");
  RequestRecord record;
  record.model = &model;
  record.times.receive = nanoseconds(1);
  record.times.queue = nanoseconds(10);
  record.times.copy_in = nanoseconds(100);
  record.times.compute = nanoseconds(1000);
  record.times.copy_out = nanoseconds(10000);
  statistics.RequestFinished(record);
  const ModelStatistics figures = statistics.Get(model);
  EXPECT_EQ(figures.success.count, 1);
  EXPECT_EQ(figures.success.time.count(), 11111);
  EXPECT_EQ(figures.queue.time.count(), 10);
  EXPECT_EQ(figures.copy_in.time.count(), 101);
  EXPECT_EQ(figures.compute.time.count(), 1000);
  EXPECT_EQ(figures.copy_out.time.count(), 10000);
  EXPECT_EQ(figures.fail.count, 0);
  EXPECT_GT(figures.last_success.time_since_epoch().count(), 0);
  EXPECT_EQ(statistics.Get(*FindModel("swiglu_forward_fp16")).success.count, 0);
}

TEST(StatisticsTest, AFailureCountsAsThatAlone) {
  Statistics statistics{ModelRegistry()};
  const Model& model = *FindModel("swiglu_forward_bf16");
  RequestRecord record;
  record.model = &model;
  record.status = absl::UnavailableError("");
  record.times.receive = nanoseconds(1);
  record.times.queue = nanoseconds(10);
  statistics.RequestFinished(record);
  const ModelStatistics figures = statistics.Get(model);
  EXPECT_EQ(figures.fail.count, 1);
  EXPECT_EQ(figures.fail.time.count(), 11);
  EXPECT_EQ(figures.success.count, 0);
  EXPECT_EQ(figures.queue.count, 0);
  EXPECT_EQ(figures.last_success, std::chrono::system_clock::time_point());
}

TEST(StatisticsTest, WhatNamesNoModelCountsNowhere) {
  Statistics statistics{ModelRegistry()};
  statistics.RequestFinished(RequestRecord());
  for (const Model& model : Models()) EXPECT_EQ(statistics.Get(model).success.count, 0);
}

TEST(StatisticsTest, BatchesCountByTheirRequests) {
  Statistics statistics{ModelRegistry()};
  BatchRecord record;
  record.model = &GetModel(Op::kBackward, Dtype::kFp32);
  record.num_requests = 4;
  record.execution.times.copy_in = nanoseconds(3);
  record.execution.times.compute = nanoseconds(7);
  record.execution.times.copy_out = nanoseconds(5);
  statistics.BatchFinished(record);
  statistics.BatchFinished(record);
  const ModelStatistics figures = statistics.Get(*FindModel("swiglu_backward_fp32"));
  EXPECT_EQ(figures.num_batches, 2);
  ASSERT_EQ(figures.by_batch_size.count(4), 1u);
  EXPECT_EQ(figures.by_batch_size.at(4).copy_in.time.count(), 6);
  EXPECT_EQ(figures.by_batch_size.at(4).compute.time.count(), 14);
  EXPECT_EQ(figures.by_batch_size.at(4).copy_out.time.count(), 10);
  EXPECT_EQ(figures.by_batch_size.at(4).compute.count, 2);
}

TEST(StatisticsTest, ABatchThatFailedWasNotExecuted) {
  Statistics statistics{ModelRegistry()};
  BatchRecord record;
  record.model = FindModel("swiglu_forward_fp16");
  record.num_requests = 1;
  record.execution.status = absl::InternalError("device 0 failed");
  statistics.BatchFinished(record);
  const ModelStatistics figures = statistics.Get(*record.model);
  EXPECT_EQ(figures.num_batches, 0);
  EXPECT_TRUE(figures.by_batch_size.empty());
}

TEST(StatisticsTest, EachModelOfAnMlpHasItsOwnFigures) {
  const ModelRegistry models(MlpModels("tiny", 2, 576));
  Statistics statistics(models);
  RequestRecord request;
  request.model = models.Find("mlp_tiny_1_forward");
  statistics.RequestFinished(request);
  BatchRecord batch;
  batch.model = models.Find("mlp_tiny_1_backward");
  batch.num_requests = 1;
  statistics.BatchFinished(batch);
  for (const Model* model : models.models()) {
    const ModelStatistics figures = statistics.Get(*model);
    EXPECT_EQ(figures.success.count, model == request.model ? 1 : 0) << model->name;
    EXPECT_EQ(figures.num_batches, model == batch.model ? 1 : 0) << model->name;
  }
}

}  // namespace
}  // namespace swiglu::server
