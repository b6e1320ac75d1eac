// SPDX-License-Identifier: Apache-2.0
//
// What the data path reports about itself, as plain values. `server/metrics` turns it into
// Prometheus series, `server/core/statistics` into the protocol's ModelStatistics. Knows neither.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "server/core/clock.h"
#include "server/core/executor.h"
#include "server/core/model.h"
#include "server/core/phase_times.h"
#include "server/core/region.h"

namespace swiglu::server {

// Why a request was not served; the metric label `reason`.
enum class Rejection : uint8_t {
  kQueueFull,
  kBudget,
  kTooLarge,
  kDeadline,
  kCancelled,
  kDraining,
  kInvalid,
  kRegion,  // about a region that one of its tensors lies in
};
inline constexpr int kNumRejections = 8;

// Who sent a request. The log asks for it when it writes a line. Thread-safe.
class RequestOrigin {
 public:
  virtual ~RequestOrigin() = default;
  // The value of the call's metadata `key`, or "". It lives as long as the origin.
  virtual absl::string_view Metadata(absl::string_view key) const = 0;
  // The address that the request came from, as the log shows it.
  virtual std::string DescribePeer() const = 0;
};

// How one ModelInfer call, or one message of a stream, ended, and where its time went.
struct RequestRecord {
  // nullptr when the request named no known model.
  const Model* model = nullptr;
  // How it ended. The caller is told so, unless its call is broken off.
  absl::Status status;
  // Set if the request was refused or dropped.
  std::optional<Rejection> rejection;
  int64_t bytes_in = 0;   // of the request message
  int64_t bytes_out = 0;  // of the response message; 0 on error
  int64_t num_elements = 0;
  // Bytes of inputs and outputs in regions, by RegionKind; 0 on error.
  std::array<int64_t, kNumRegionKinds> region_bytes_in{};
  std::array<int64_t, kNumRegionKinds> region_bytes_out{};
  PhaseTimes times;
  // When the headers of the call were there; in a stream, when the whole message was there.
  Clock::time_point started;
  Clock::time_point ended;
  // The message's own `id`, or "". Like `origin`, valid only while an observer is being told of
  // this record.
  absl::string_view id;
  const RequestOrigin* origin = nullptr;  // nullptr: unknown
};

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
  // Called just before a unary call or a stream ends with an error that tells the caller to try
  // again later.
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
