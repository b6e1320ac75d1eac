// SPDX-License-Identifier: Apache-2.0
//
// Claims and releases.
#include "server/device/lane_executor.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/device/batch_split.h"
#include "server/log/log.h"
#include "swiglu/segment.h"

namespace swiglu::server {
namespace {

// What a device computes in some 0.2 ms, the bus being its limit; large enough to be worth copies.
constexpr int64_t kMaxLaneBatchBytes = int64_t{8} << 20;

// The end of a batch that came after that device had failed.
Execution NotRun(int failed_device) {
  Execution execution;
  execution.status = absl::UnavailableError(
      absl::StrCat("device ", failed_device, " failed before the request ran"));
  execution.path = Path::kMapped;
  return execution;
}

}  // namespace

LaneExecutor::LaneExecutor(std::vector<LaneDevice> devices,
                           std::unique_ptr<CachingSlabPool> slab_pool,
                           std::unique_ptr<DeviceFaults> faults)
    : faults_(std::move(faults)), slab_pool_(std::move(slab_pool)), devices_(std::move(devices)) {
  CHECK(!devices_.empty());
  absl::MutexLock lock(&mutex_);
  for (const LaneDevice& device : devices_) {
    CHECK(!device.lanes.empty());
    CHECK(device.resident_lanes.size() == devices_.front().resident_lanes.size());
    CHECK(device.mlp_lanes.size() == devices_.front().mlp_lanes.size());
    const std::array<const std::vector<std::unique_ptr<Lane>>*, kNumLaneUses> by_use = {
        &device.lanes, &device.resident_lanes, &device.mlp_lanes};
    auto& queues = lanes_.emplace_back();
    for (size_t use = 0; use < by_use.size(); ++use) {
      for (const auto& lane : *by_use[use]) queues[use].free.push_back(lane.get());
    }
    mlp_loads_.emplace_back();
    loads_.push_back({.num_free_lanes = static_cast<int>(device.lanes.size())});
    num_lanes_ += static_cast<int>(device.lanes.size());
    CHECK(device.num_large_lanes < static_cast<int>(device.lanes.size()));
    num_large_lanes_ += device.num_large_lanes;
  }
}

LaneExecutor::~LaneExecutor() {
  const auto idle = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return num_held_ == 0; };
  absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(&idle));
}

int LaneExecutor::max_segments() const { return swiglu::kMaxSegments; }

int64_t LaneExecutor::max_batch_bytes() const { return kMaxLaneBatchBytes; }

// Of the two operations, forward writes the less: half of what it reads.
int64_t LaneExecutor::large_batch_bytes() const { return kLargeBatchBytes * 2 / 3; }

std::chrono::nanoseconds LaneExecutor::caller_wait_time() const {
  std::chrono::nanoseconds sum{0};
  for (const LaneDevice& device : devices_) {
    for (const auto* lanes : {&device.lanes, &device.resident_lanes, &device.mlp_lanes}) {
      for (const auto& lane : *lanes) sum += lane->caller_wait_time();
    }
  }
  return sum;
}

std::string LaneExecutor::description() const {
  return absl::StrJoin(devices_, ", ", [](std::string* out, const LaneDevice& device) {
    out->append(device.description);
  });
}

void LaneExecutor::Run(const Batch& batch, Done done) {
  if (const std::optional<int> failed = faults_->failed_device()) return done(NotRun(*failed));
  Claim claim;
  {
    absl::MutexLock lock(&mutex_);
    ++num_held_;
    const LaneUse use = UseFor(batch);
    CHECK(use != LaneUse::kResident || num_resident_lanes() > 0);
    CHECK(use != LaneUse::kMlp || num_mlp_lanes() > 0);
    const int device = use == LaneUse::kMlp ? ChooseMlpDevice(batch) : ChooseDeviceOf(batch);
    LaneQueue& lanes = LanesFor(device, use);
    if (lanes.free.empty()) {
      lanes.waiting.push_back({&batch, std::move(done)});
      return;
    }
    claim = ClaimLane(device, batch);
  }
  Start(claim, batch, std::move(done));
}

void LaneExecutor::Start(const Claim& claim, const Batch& batch, Done done) {
  if (const std::optional<int> failed = faults_->failed_device()) {
    return Finish(claim, {NotRun(*failed), std::nullopt}, std::move(done));
  }
  claim.lane->Run(batch, PlanLaunch(batch, claim.situation),
                  [this, claim, &batch, done = std::move(done)](const LaneResult& result) mutable {
                    if (claim.use == LaneUse::kMlp || !IsWorthRetrying(result)) {
                      return Finish(claim, result, std::move(done));
                    }
                    RunInHalves(
                        *claim.lane, batch, result,
                        [this, claim](const DeviceFault& fault) { ReportFault(claim, fault); },
                        [this, claim, done = std::move(done)](const LaneResult& last) mutable {
                          Finish(claim, last, std::move(done));
                        });
                  });
}

void LaneExecutor::Finish(const Claim& claim, const LaneResult& result, Done done) {
  if (result.fault) ReportFault(claim, *result.fault);
  // The lane counts as free before `done`, which may bring the next batch.
  ReleaseLane(claim);
  Execution execution = result.execution;
  execution.device = devices_[claim.device].ordinal;
  done(execution);
  done = nullptr;
  absl::MutexLock lock(&mutex_);
  --num_held_;
}

int LaneExecutor::ChooseDeviceOf(const Batch& batch) {
  const int ordinal = batch.placement.device;
  if (ordinal == kCpuDevice) {
    const int device = ChooseDevice(loads_);
    CHECK(device >= 0);
    return device;
  }
  return PositionOf(ordinal);
}

int LaneExecutor::ChooseMlpDevice(const Batch& batch) {
  CHECK(batch.weights != nullptr);
  int best = -1;
  for (const WeightsPlace& place : batch.weights->places()) {
    const int device = PositionOf(place.device);
    // Its tensors need not go to another device.
    if (place.device == batch.placement.device) {
      best = device;
      break;
    }
    if (best < 0 || IsLessLoaded(mlp_loads_[device], mlp_loads_[best])) best = device;
  }
  CHECK(best >= 0);
  GiveBatch(absl::MakeSpan(mlp_loads_), best, BatchBytes(batch));
  return best;
}

int LaneExecutor::PositionOf(int ordinal) const {
  const auto found =
      std::find_if(devices_.begin(), devices_.end(),
                   [ordinal](const LaneDevice& device) { return device.ordinal == ordinal; });
  CHECK(found != devices_.end());
  return static_cast<int>(found - devices_.begin());
}

LaneExecutor::Claim LaneExecutor::ClaimLane(int device, const Batch& batch) {
  const LaneUse use = UseFor(batch);
  LaneQueue& lanes = LanesFor(device, use);
  Lane* const lane = lanes.free.front();
  lanes.free.pop_front();
  DeviceLoad& load = loads_[device];
  const LaunchSituation situation{
      .resident_work = load.num_resident > 0 ? ResidentWork::kRunning : ResidentWork::kNone,
      .other_bytes = load.outstanding_bytes};
  const int64_t bytes = BatchBytes(batch);
  if (use == LaneUse::kAny) {
    --load.num_free_lanes;
    GiveBatch(absl::MakeSpan(loads_), device, bytes);
  } else {
    ++load.num_resident;
  }
  return {device, lane, use, bytes, situation};
}

void LaneExecutor::ReleaseLane(const Claim& claim) {
  Claim next_claim;
  WaitingBatch next;
  {
    absl::MutexLock lock(&mutex_);
    LaneQueue& lanes = LanesFor(claim.device, claim.use);
    // Behind the others: this one's thread is about to call `done`.
    lanes.free.push_back(claim.lane);
    DeviceLoad& load = loads_[claim.device];
    if (claim.use == LaneUse::kAny) {
      ++load.num_free_lanes;
      load.outstanding_bytes -= claim.bytes;
    } else {
      --load.num_resident;
    }
    if (claim.use == LaneUse::kMlp) mlp_loads_[claim.device].outstanding_bytes -= claim.bytes;
    if (lanes.waiting.empty()) return;
    next = std::move(lanes.waiting.front());
    lanes.waiting.pop_front();
    next_claim = ClaimLane(claim.device, *next.batch);
  }
  Start(next_claim, *next.batch, std::move(next.done));
}

void LaneExecutor::ReportFault(const Claim& claim, const DeviceFault& fault) {
  faults_->Report(devices_[claim.device].ordinal, fault.kind, fault.description);
}

}  // namespace swiglu::server
