// SPDX-License-Identifier: Apache-2.0
//
// The reports of the data path, as plain values, and the interface that receives them.
// `server/metrics` turns them into Prometheus series, and `server/core/statistics` into the
// protocol's ModelStatistics. This file depends on neither of the two.
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

// Why a request was not served. The metric label `reason`.
enum class Rejection : uint8_t {
  kQueueFull,
  kBudget,
  kTooLarge,
  kDeadline,
  kCancelled,
  kDraining,
  kInvalid,
  kRegion,   // a region, or the request's use of one, is at fault
  kLoading,  // the weights of the model are not there yet
};
inline constexpr int kNumRejections = 9;

// Who sent a request. The log calls these methods when it writes a line. Thread-safe.
class RequestOrigin {
 public:
  virtual ~RequestOrigin() = default;
  // The value of the call's metadata `key`, or "". Valid as long as this object.
  virtual absl::string_view Metadata(absl::string_view key) const = 0;
  // The address from which the request came, as the log shows it.
  virtual std::string DescribePeer() const = 0;
};

// How one ModelInfer call, or one message of a stream, ended, and how long its phases took.
struct RequestRecord {
  // nullptr if the request named no known model.
  const Model* model = nullptr;
  // How the request ended. The caller gets this status, unless its call is cancelled first.
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
  // When the headers of the call had arrived. In a stream: when the whole message had arrived.
  Clock::time_point started;
  Clock::time_point ended;
  // The `id` in the message, or "". `id` and `origin` are valid only during `RequestFinished`.
  absl::string_view id;
  const RequestOrigin* origin = nullptr;  // nullptr: unknown
};

// One executed batch, successful or not.
struct BatchRecord {
  const Model* model = nullptr;  // never nullptr in a report
  int64_t num_requests = 0;
  int64_t num_elements = 0;
  Execution execution;
};

// The kinds of device errors. The metric label `kind`.
enum class DeviceError : uint8_t { kSticky, kOutOfMemory, kOther };
inline constexpr int kNumDeviceErrors = 3;

// Receives reports. Implementations are thread-safe, do not block and do not call the reporter.
class Observer {
 public:
  virtual ~Observer() = default;

  // Called exactly once for each request, just before its answer is handed to gRPC.
  virtual void RequestFinished(const RequestRecord& record) = 0;
  // Called after RequestFinished, when gRPC has taken the last byte. `total` is the time since
  // `RequestRecord::started`, `send` the time since the answer was handed over. Not called if the
  // caller went away before that.
  virtual void RequestSent(const Model* model, std::chrono::nanoseconds total,
                           std::chrono::nanoseconds send) = 0;
  // Called just before a call ends with an error that advises the caller to try again later.
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
