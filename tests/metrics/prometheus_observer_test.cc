// SPDX-License-Identifier: Apache-2.0
//
// Which report adds to which series, seen on the page; and that nothing else moves.
#include "server/metrics/prometheus_observer.h"

#include <chrono>
#include <map>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "tests/batching/mlp_models.h"
#include "tests/metrics/parsed_page.h"

namespace swiglu::server {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;

const Model& Fp16Forward() { return GetModel(Op::kForward, Dtype::kFp16); }

class PrometheusObserverTest : public testing::Test {
 protected:
  // Every series that is not 0.
  std::map<std::string, double> Moved() const {
    std::map<std::string, double> moved;
    for (const auto& [series, value] : ParsePage(Serialize(observer_.Collect())).values) {
      if (value != 0) moved[series] = value;
    }
    return moved;
  }
  double Value(const std::string& series) const {
    const ParsedPage page = ParsePage(Serialize(observer_.Collect()));
    const auto found = page.values.find(series);
    return found == page.values.end() ? -1 : found->second;
  }

  PrometheusObserver observer_{ModelRegistry()};
};

TEST_F(PrometheusObserverTest, NothingHasMovedAtTheStart) { EXPECT_TRUE(Moved().empty()); }

TEST_F(PrometheusObserverTest, RefusedRequestCountsItsCodeAndItsBytesAlone) {
  RequestRecord record;
  record.model = &GetModel(Op::kBackward, Dtype::kBf16);
  record.status = absl::InvalidArgumentError("");
  record.bytes_in = 300;
  record.num_elements = 7;
  record.times.receive = milliseconds(1);
  observer_.RequestFinished(record);
  EXPECT_EQ(
      Moved(),
      (std::map<std::string, double>{
          {"swiglu_requests_total{code=\"INVALID_ARGUMENT\",model=\"swiglu_backward_bf16\"}", 1},
          {"swiglu_request_bytes_total{direction=\"in\"}", 300},
      }));
}

TEST_F(PrometheusObserverTest, RequestsOfUnknownModelsAreCountedTogether) {
  RequestRecord record;
  record.status = absl::NotFoundError("");
  observer_.RequestFinished(record);
  observer_.RequestFinished(record);
  observer_.RequestSent(nullptr, microseconds(15), microseconds(5));
  EXPECT_EQ(Value("swiglu_requests_total{code=\"NOT_FOUND\",model=\"unknown\"}"), 2);
  EXPECT_EQ(Value("swiglu_request_duration_seconds_count{model=\"unknown\"}"), 1);
}

TEST_F(PrometheusObserverTest, EveryCodeHasItsName) {
  const std::map<absl::StatusCode, std::string> names = {
      {absl::StatusCode::kOk, "OK"},
      {absl::StatusCode::kCancelled, "CANCELLED"},
      {absl::StatusCode::kUnknown, "UNKNOWN"},
      {absl::StatusCode::kInvalidArgument, "INVALID_ARGUMENT"},
      {absl::StatusCode::kDeadlineExceeded, "DEADLINE_EXCEEDED"},
      {absl::StatusCode::kNotFound, "NOT_FOUND"},
      {absl::StatusCode::kAlreadyExists, "ALREADY_EXISTS"},
      {absl::StatusCode::kPermissionDenied, "PERMISSION_DENIED"},
      {absl::StatusCode::kResourceExhausted, "RESOURCE_EXHAUSTED"},
      {absl::StatusCode::kFailedPrecondition, "FAILED_PRECONDITION"},
      {absl::StatusCode::kAborted, "ABORTED"},
      {absl::StatusCode::kOutOfRange, "OUT_OF_RANGE"},
      {absl::StatusCode::kUnimplemented, "UNIMPLEMENTED"},
      {absl::StatusCode::kInternal, "INTERNAL"},
      {absl::StatusCode::kUnavailable, "UNAVAILABLE"},
      {absl::StatusCode::kDataLoss, "DATA_LOSS"},
      {absl::StatusCode::kUnauthenticated, "UNAUTHENTICATED"},
  };
  for (const auto& [code, name] : names) {
    RequestRecord record;
    record.status = absl::Status(code, "");
    observer_.RequestFinished(record);
    EXPECT_EQ(Value("swiglu_requests_total{code=\"" + name + "\",model=\"unknown\"}"), 1);
  }
  RequestRecord odd;
  odd.status = absl::Status(static_cast<absl::StatusCode>(99), "");
  observer_.RequestFinished(odd);
  EXPECT_EQ(Value("swiglu_requests_total{code=\"UNKNOWN\",model=\"unknown\"}"), 2);
}

TEST_F(PrometheusObserverTest, ServedRequestCountsBytesElementsAndPhases) {
  RequestRecord record;
  record.model = &Fp16Forward();
  record.bytes_in = 1000;
  record.bytes_out = 500;
  record.num_elements = 250;
  record.times.receive = milliseconds(1);
  record.times.queue = milliseconds(2);
  record.times.copy_in = milliseconds(3);
  record.times.compute = milliseconds(4);
  record.times.copy_out = milliseconds(5);
  observer_.RequestFinished(record);
  observer_.RequestSent(record.model, milliseconds(21), milliseconds(6));

  EXPECT_EQ(Value("swiglu_requests_total{code=\"OK\",model=\"swiglu_forward_fp16\"}"), 1);
  EXPECT_EQ(Value("swiglu_request_bytes_total{direction=\"in\"}"), 1000);
  EXPECT_EQ(Value("swiglu_request_bytes_total{direction=\"out\"}"), 500);
  EXPECT_EQ(Value("swiglu_elements_total{model=\"swiglu_forward_fp16\"}"), 250);
  const std::vector<std::pair<std::string, double>> phases = {
      {"receive", 0.001}, {"queue", 0.002},    {"copy_in", 0.003},
      {"compute", 0.004}, {"copy_out", 0.005}, {"send", 0.006}};
  for (const auto& [phase, seconds] : phases) {
    const std::string labels = "{model=\"swiglu_forward_fp16\",phase=\"" + phase + "\"}";
    EXPECT_EQ(Value("swiglu_phase_duration_seconds_count" + labels), 1) << phase;
    EXPECT_DOUBLE_EQ(Value("swiglu_phase_duration_seconds_sum" + labels), seconds) << phase;
  }
  EXPECT_DOUBLE_EQ(Value("swiglu_request_duration_seconds_sum{model=\"swiglu_forward_fp16\"}"),
                   0.021);
}

RequestRecord RecordWithRegions() {
  RequestRecord record;
  record.model = &Fp16Forward();
  record.region_bytes_in = {1000, 200};
  record.region_bytes_out = {30, 4};
  return record;
}

TEST_F(PrometheusObserverTest, ServedRequestCountsBytesInRegionsByMemoryAndDirection) {
  observer_.RequestFinished(RecordWithRegions());
  observer_.RequestFinished(RecordWithRegions());
  EXPECT_EQ(Value("swiglu_region_bytes_total{direction=\"in\",memory=\"system\"}"), 2000);
  EXPECT_EQ(Value("swiglu_region_bytes_total{direction=\"in\",memory=\"cuda\"}"), 400);
  EXPECT_EQ(Value("swiglu_region_bytes_total{direction=\"out\",memory=\"system\"}"), 60);
  EXPECT_EQ(Value("swiglu_region_bytes_total{direction=\"out\",memory=\"cuda\"}"), 8);
}

TEST_F(PrometheusObserverTest, FailedRequestCountsNoBytesInRegions) {
  RequestRecord record = RecordWithRegions();
  record.status = absl::InternalError("");
  observer_.RequestFinished(record);
  EXPECT_EQ(Moved(),
            (std::map<std::string, double>{
                {"swiglu_requests_total{code=\"INTERNAL\",model=\"swiglu_forward_fp16\"}", 1}}));
}

TEST_F(PrometheusObserverTest, DurationsFallIntoTheirBuckets) {
  for (const auto total :
       {microseconds(9), microseconds(10), microseconds(11), microseconds(20'000'000)}) {
    observer_.RequestSent(&Fp16Forward(), total, microseconds(0));
  }
  const auto bucket = [&](const std::string& bound) {
    return Value("swiglu_request_duration_seconds_bucket{le=\"" + bound +
                 "\",model=\"swiglu_forward_fp16\"}");
  };
  EXPECT_EQ(bucket("1e-05"), 2);
  EXPECT_EQ(bucket("2e-05"), 3);
  EXPECT_EQ(bucket("10"), 3);
  EXPECT_EQ(bucket("+Inf"), 4);
}

TEST_F(PrometheusObserverTest, BatchCountsItsPathAndSize) {
  BatchRecord record;
  record.model = &GetModel(Op::kBackward, Dtype::kFp32);
  record.num_requests = 3;
  record.num_elements = 5000;
  record.execution.path = Path::kMapped;
  observer_.BatchFinished(record);
  EXPECT_EQ(Value("swiglu_batches_total{dtype=\"fp32\",op=\"backward\",path=\"mapped\"}"), 1);
  EXPECT_EQ(Value("swiglu_batch_requests_sum"), 3);
  EXPECT_EQ(Value("swiglu_batch_requests_bucket{le=\"2\"}"), 0);
  EXPECT_EQ(Value("swiglu_batch_requests_bucket{le=\"4\"}"), 1);
  EXPECT_EQ(Value("swiglu_batch_elements_bucket{le=\"4096\"}"), 0);
  EXPECT_EQ(Value("swiglu_batch_elements_bucket{le=\"16384\"}"), 1);
}

TEST_F(PrometheusObserverTest, BatchCountsItsTensorsForItsDevice) {
  observer_.AddDevice(kCpuDevice);
  observer_.AddDevice(0);
  observer_.AddDevice(1);
  observer_.AddDevice(1);
  BatchRecord record;
  record.model = &Fp16Forward();
  record.num_elements = 1000;
  record.execution.device = 1;
  observer_.BatchFinished(record);  // two FP16 tensors in, one out
  record.model = &GetModel(Op::kBackward, Dtype::kFp32);
  observer_.BatchFinished(record);  // three FP32 tensors in, three out
  EXPECT_EQ(Value("swiglu_device_bytes_total{device=\"1\"}"), 6000 + 24000);
  EXPECT_EQ(Value("swiglu_device_bytes_total{device=\"0\"}"), 0);
  EXPECT_EQ(Value("swiglu_device_bytes_total{device=\"cpu\"}"), 0);
  record.execution.device = kCpuDevice;
  observer_.BatchFinished(record);
  EXPECT_EQ(Value("swiglu_device_bytes_total{device=\"cpu\"}"), 24000);
}

TEST_F(PrometheusObserverTest, BatchThatFailedCountsNoBytes) {
  observer_.AddDevice(0);
  BatchRecord record;
  record.model = &Fp16Forward();
  record.num_elements = 1000;
  record.execution.device = 0;
  record.execution.status = absl::InternalError("device 0 failed");
  observer_.BatchFinished(record);
  EXPECT_EQ(Value("swiglu_device_bytes_total{device=\"0\"}"), 0);
}

TEST_F(PrometheusObserverTest, EveryPathHasItsName) {
  const std::vector<std::pair<Path, std::string>> paths = {{Path::kCpu, "cpu"},
                                                           {Path::kMapped, "mapped"},
                                                           {Path::kStaged, "staged"},
                                                           {Path::kRegion, "region"}};
  for (const auto& [path, name] : paths) {
    BatchRecord record;
    record.model = &Fp16Forward();
    record.execution.path = path;
    observer_.BatchFinished(record);
    EXPECT_EQ(Value("swiglu_batches_total{dtype=\"fp16\",op=\"forward\",path=\"" + name + "\"}"),
              1);
  }
}

TEST_F(PrometheusObserverTest, EveryRejectionHasItsName) {
  const std::vector<std::pair<Rejection, std::string>> reasons = {
      {Rejection::kQueueFull, "queue_full"}, {Rejection::kBudget, "budget"},
      {Rejection::kTooLarge, "too_large"},   {Rejection::kDeadline, "deadline"},
      {Rejection::kCancelled, "cancelled"},  {Rejection::kDraining, "draining"},
      {Rejection::kInvalid, "invalid"},      {Rejection::kRegion, "region"},
      {Rejection::kLoading, "loading"}};
  for (const auto& [reason, name] : reasons) {
    RequestRecord record;
    record.rejection = reason;
    observer_.RequestFinished(record);
    EXPECT_EQ(Value("swiglu_rejected_total{reason=\"" + name + "\"}"), 1);
  }
}

TEST_F(PrometheusObserverTest, DeviceErrorsAreCountedByDeviceAndKind) {
  observer_.AddDevice(0);
  observer_.AddDevice(0);
  observer_.AddDevice(kCpuDevice);
  observer_.DeviceFailed(0, DeviceError::kSticky);
  observer_.DeviceFailed(0, DeviceError::kOutOfMemory);
  observer_.DeviceFailed(0, DeviceError::kOutOfMemory);
  observer_.DeviceFailed(5, DeviceError::kOther);  // one that was not announced
  EXPECT_EQ(Moved(), (std::map<std::string, double>{
                         {"swiglu_device_errors_total{device=\"0\",kind=\"sticky\"}", 1},
                         {"swiglu_device_errors_total{device=\"0\",kind=\"out_of_memory\"}", 2},
                         {"swiglu_device_errors_total{device=\"5\",kind=\"other\"}", 1},
                         {"swiglu_device_poisoned{device=\"0\"}", 1},
                     }));
  EXPECT_EQ(Value("swiglu_device_errors_total{device=\"cpu\",kind=\"other\"}"), 0);
}

TEST_F(PrometheusObserverTest, OnlyAStickyErrorPoisonsADevice) {
  observer_.AddDevice(0);
  observer_.AddDevice(1);
  observer_.DeviceFailed(0, DeviceError::kOutOfMemory);
  observer_.DeviceFailed(0, DeviceError::kOther);
  EXPECT_EQ(Value("swiglu_device_poisoned{device=\"0\"}"), 0);
  EXPECT_EQ(Value("swiglu_device_poisoned{device=\"1\"}"), 0);
  observer_.DeviceFailed(1, DeviceError::kSticky);
  EXPECT_EQ(Value("swiglu_device_poisoned{device=\"0\"}"), 0);
  EXPECT_EQ(Value("swiglu_device_poisoned{device=\"1\"}"), 1);
  observer_.AddDevice(1);  // too late to be forgiven
  EXPECT_EQ(Value("swiglu_device_poisoned{device=\"1\"}"), 1);
}

TEST_F(PrometheusObserverTest, AdviceToRetryIsCounted) {
  EXPECT_EQ(Value("swiglu_retry_pushbacks_total"), 0);
  observer_.RetryAdvised();
  observer_.RetryAdvised();
  EXPECT_EQ(Moved(), (std::map<std::string, double>{{"swiglu_retry_pushbacks_total", 2}}));
}

TEST_F(PrometheusObserverTest, ReportsFromManyThreadsAllCount) {
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([this] {
      RequestRecord record;
      record.model = &Fp16Forward();
      record.num_elements = 2;
      for (int i = 0; i < 1000; ++i) {
        observer_.RequestFinished(record);
        observer_.RequestSent(record.model, microseconds(1), microseconds(1));
        if (i % 250 == 0) observer_.Collect();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(Value("swiglu_elements_total{model=\"swiglu_forward_fp16\"}"), 8000);
  EXPECT_EQ(Value("swiglu_request_duration_seconds_count{model=\"swiglu_forward_fp16\"}"), 4000);
}

// --- Models of an MLP

class MlpObserverTest : public testing::Test {
 protected:
  // 0 if the page does not show `series`; else 1, and its value.
  using Shown = std::pair<int, double>;
  Shown Show(const std::string& series) const {
    const ParsedPage page = ParsePage(Serialize(observer_.Collect()));
    const auto found = page.values.find(series);
    return found == page.values.end() ? Shown{0, 0} : Shown{1, found->second};
  }

  const ModelRegistry models_{MlpModels("tiny", 2, 576)};
  PrometheusObserver observer_{models_};
};

TEST_F(MlpObserverTest, ItsSeriesAreZeroAtTheStart) {
  EXPECT_EQ(Show("swiglu_requests_total{code=\"OK\",model=\"mlp_tiny\"}"), Shown(1, 0));
  EXPECT_EQ(Show("swiglu_elements_total{model=\"mlp_tiny\"}"), Shown(1, 0));
  EXPECT_EQ(Show("swiglu_request_duration_seconds_count{model=\"mlp_tiny\"}"), Shown(1, 0));
  EXPECT_EQ(Show("swiglu_phase_duration_seconds_count{model=\"mlp_tiny\",phase=\"send\"}"),
            Shown(1, 0));
  for (const std::string op : {"mlp_forward", "mlp_backward"}) {
    EXPECT_EQ(Show("swiglu_batches_total{dtype=\"bf16\",op=\"" + op + "\",path=\"cpu\"}"),
              Shown(1, 0));
    EXPECT_EQ(Show("swiglu_batches_total{dtype=\"fp16\",op=\"" + op + "\",path=\"cpu\"}"),
              Shown(0, 0));
  }
}

TEST_F(MlpObserverTest, AllLayersAndBothPassesCountTogether) {
  for (const Model* model : models_.models()) {
    RequestRecord record;
    record.model = model;
    record.num_elements = 10;
    observer_.RequestFinished(record);
    observer_.RequestSent(model, milliseconds(1), milliseconds(1));
  }
  EXPECT_EQ(Show("swiglu_requests_total{code=\"OK\",model=\"mlp_tiny\"}"), Shown(1, 4));
  EXPECT_EQ(Show("swiglu_elements_total{model=\"mlp_tiny\"}"), Shown(1, 40));
  EXPECT_EQ(Show("swiglu_request_duration_seconds_count{model=\"mlp_tiny\"}"), Shown(1, 4));
  EXPECT_EQ(Show("swiglu_elements_total{model=\"swiglu_backward_fp32\"}"), Shown(1, 10));
  const ParsedPage page = ParsePage(Serialize(observer_.Collect()));
  for (const auto& [series, value] : page.values) {
    EXPECT_EQ(series.find("mlp_tiny_"), std::string::npos) << series;
  }
}

TEST_F(MlpObserverTest, BatchesCountByOperationAndDtype) {
  for (const Model* model : models_.models()) {
    BatchRecord record;
    record.model = model;
    observer_.BatchFinished(record);
  }
  const auto shown = [this](const std::string& op) {
    return Show("swiglu_batches_total{dtype=\"bf16\",op=\"" + op + "\",path=\"cpu\"}");
  };
  EXPECT_EQ(shown("mlp_forward"), Shown(1, 2));
  EXPECT_EQ(shown("mlp_backward"), Shown(1, 2));
  EXPECT_EQ(shown("forward"), Shown(1, 1));
  EXPECT_EQ(shown("backward"), Shown(1, 1));
}

TEST_F(MlpObserverTest, TokensOfServedRequestsCountByOperation) {
  const auto tokens = [this](const std::string& op) {
    return Show("swiglu_mlp_tokens_total{model=\"mlp_tiny\",op=\"" + op + "\"}");
  };
  EXPECT_EQ(tokens("mlp_forward"), Shown(1, 0));
  EXPECT_EQ(tokens("mlp_backward"), Shown(1, 0));
  const auto finish = [this](const char* model, int64_t num_tokens, absl::Status status) {
    RequestRecord record;
    record.model = models_.Find(model);
    record.num_elements = num_tokens * 576;
    record.status = std::move(status);
    observer_.RequestFinished(record);
  };
  finish("mlp_tiny_0_forward", 3, absl::OkStatus());
  finish("mlp_tiny_1_forward", 4, absl::OkStatus());
  finish("mlp_tiny_1_backward", 50, absl::OkStatus());
  finish("mlp_tiny_1_backward", 600, absl::InternalError(""));
  EXPECT_EQ(tokens("mlp_forward"), Shown(1, 7));
  EXPECT_EQ(tokens("mlp_backward"), Shown(1, 50));
}

TEST_F(MlpObserverTest, BatchesCountTheirTokens) {
  BatchRecord record;
  record.model = models_.Find("mlp_tiny_1_forward");
  for (const int64_t num_tokens : {1, 2, 3, 100'000}) {
    record.num_elements = num_tokens * 576;
    observer_.BatchFinished(record);
  }
  const auto bucket = [this](const std::string& bound, const std::string& op) {
    return Show("swiglu_mlp_batch_tokens_bucket{le=\"" + bound + "\",model=\"mlp_tiny\",op=\"" +
                op + "\"}");
  };
  EXPECT_EQ(bucket("1", "mlp_forward"), Shown(1, 1));
  EXPECT_EQ(bucket("2", "mlp_forward"), Shown(1, 2));
  EXPECT_EQ(bucket("4", "mlp_forward"), Shown(1, 3));
  EXPECT_EQ(bucket("65536", "mlp_forward"), Shown(1, 3));
  EXPECT_EQ(bucket("+Inf", "mlp_forward"), Shown(1, 4));
  EXPECT_EQ(bucket("+Inf", "mlp_backward"), Shown(1, 0));
  EXPECT_EQ(Show("swiglu_mlp_batch_tokens_sum{model=\"mlp_tiny\",op=\"mlp_forward\"}"),
            Shown(1, 100'006));
}

TEST_F(PrometheusObserverTest, ShowsNoOperationOfAnMlpIfThereIsNone) {
  for (const auto& [series, value] : ParsePage(Serialize(observer_.Collect())).values) {
    EXPECT_EQ(series.find("mlp"), std::string::npos) << series;
  }
}

}  // namespace
}  // namespace swiglu::server
