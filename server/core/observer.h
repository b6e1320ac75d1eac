// SPDX-License-Identifier: Apache-2.0
//
// What the data path reports about itself, as plain values. `server/metrics` turns it into
// Prometheus series, `server/core/statistics` into the protocol's ModelStatistics. Knows neither.
#pragma once

#include <chrono>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "server/core/executor.h"
#include "server/core/model.h"

namespace swiglu::server {

// How one ModelInfer call, or one message of a stream, ended, and where its time went. Its time
// starts when the headers of the call are there; in a stream, when the whole message is there.
// Phases that it did not reach are 0.
struct RequestRecord {
  // nullptr when the request named no known model.
  const Model* model = nullptr;
  absl::StatusCode code = absl::StatusCode::kOk;
  int64_t bytes_in = 0;   // of the request message
  int64_t bytes_out = 0;  // of the response message; 0 on error
  int64_t num_elements = 0;
  std::chrono::nanoseconds receive{0};   // from the start to queued
  std::chrono::nanoseconds queue{0};     // accepted to taken into a batch
  std::chrono::nanoseconds copy_in{0};   // of the batch that it was part of
  std::chrono::nanoseconds compute{0};   // likewise
  std::chrono::nanoseconds copy_out{0};  // likewise
};

// Why a request was not served; the metric label `reason`.
enum class Rejection : uint8_t {
  kQueueFull,
  kBudget,
  kTooLarge,
  kDeadline,
  kCancelled,
  kDraining,
  kInvalid,
};
inline constexpr int kNumRejections = 7;

// One executed batch, successful or not.
struct BatchRecord {
  Op op = Op::kForward;
  Dtype dtype = Dtype::kFp16;
  int64_t num_requests = 0;
  int64_t num_elements = 0;
  Execution execution;
};

// The metric label `kind` of a device error.
enum class DeviceError : uint8_t { kSticky, kOutOfMemory, kOther };
inline constexpr int kNumDeviceErrors = 3;

// Receives reports. Implementations are thread-safe, do not block and do not call back.
class Observer {
 public:
  virtual ~Observer() = default;

  // Exactly once for each request, just before its answer is handed to gRPC.
  virtual void RequestFinished(const RequestRecord& record) = 0;
  // After RequestFinished, once gRPC has taken the last byte: `total` since the start (see
  // RequestRecord), `send` since the answer was handed over. Not called when the caller went away
  // first.
  virtual void RequestSent(const Model* model, std::chrono::nanoseconds total,
                           std::chrono::nanoseconds send) = 0;
  // Beside RequestFinished, for a request that was refused or dropped.
  virtual void RequestRejected(Rejection reason) = 0;
  // Just before a unary call or a stream ends with the advice to try again later.
  virtual void RetryAdvised() {}
  virtual void BatchFinished(const BatchRecord& record) = 0;
  virtual void DeviceFailed(int device, DeviceError kind) = 0;
};

// Passes every report on to each of `observers`, in order.
class ObserverList final : public Observer {
 public:
  // The observers must outlive the list.
  explicit ObserverList(std::vector<Observer*> observers) : observers_(std::move(observers)) {}

  void RequestFinished(const RequestRecord& record) override {
    for (Observer* o : observers_) o->RequestFinished(record);
  }
  void RequestSent(const Model* model, std::chrono::nanoseconds total,
                   std::chrono::nanoseconds send) override {
    for (Observer* o : observers_) o->RequestSent(model, total, send);
  }
  void RequestRejected(Rejection reason) override {
    for (Observer* o : observers_) o->RequestRejected(reason);
  }
  void RetryAdvised() override {
    for (Observer* o : observers_) o->RetryAdvised();
  }
  void BatchFinished(const BatchRecord& record) override {
    for (Observer* o : observers_) o->BatchFinished(record);
  }
  void DeviceFailed(int device, DeviceError kind) override {
    for (Observer* o : observers_) o->DeviceFailed(device, kind);
  }

 private:
  std::vector<Observer*> observers_;
};

}  // namespace swiglu::server
