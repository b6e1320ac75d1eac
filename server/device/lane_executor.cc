// SPDX-License-Identifier: Apache-2.0
//
// Claims and releases.
#include "server/device/lane_executor.h"

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
constexpr int64_t kMaxBatchBytes = int64_t{8} << 20;

}  // namespace

LaneExecutor::LaneExecutor(std::vector<LaneDevice> devices,
                           std::unique_ptr<CachingSlabPool> slab_pool,
                           std::unique_ptr<DeviceFaults> faults)
    : faults_(std::move(faults)), slab_pool_(std::move(slab_pool)), devices_(std::move(devices)) {
  CHECK(!devices_.empty());
  absl::MutexLock lock(&mutex_);
  for (const LaneDevice& device : devices_) {
    CHECK(!device.lanes.empty());
    std::deque<Lane*>& free_lanes = free_lanes_.emplace_back();
    for (const std::unique_ptr<Lane>& lane : device.lanes) free_lanes.push_back(lane.get());
    loads_.push_back({.num_free_lanes = static_cast<int>(device.lanes.size())});
    num_lanes_ += static_cast<int>(device.lanes.size());
  }
}

LaneExecutor::~LaneExecutor() {
  const auto idle = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return num_held_ == 0; };
  absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(&idle));
}

int LaneExecutor::max_segments() const { return swiglu::kMaxSegments; }

int64_t LaneExecutor::max_batch_bytes() const { return kMaxBatchBytes; }

std::string LaneExecutor::description() const {
  return absl::StrJoin(devices_, ", ", [](std::string* out, const LaneDevice& device) {
    out->append(device.description);
  });
}

void LaneExecutor::Run(const Batch& batch, Done done) {
  if (const std::optional<int> failed = faults_->failed_device()) {
    Execution execution;
    execution.status =
        absl::UnavailableError(absl::StrCat("device ", *failed, " failed before the request ran"));
    execution.path = Path::kMapped;
    done(execution);
    return;
  }
  const Claim claim = ClaimLane(BatchBytes(batch));
  claim.lane->Run(batch, PlanLaunch(batch, {.other_bytes = claim.other_bytes}),
                  [this, claim, &batch, done = std::move(done)](const LaneResult& result) mutable {
                    if (!IsWorthRetrying(result)) return Finish(claim, result, std::move(done));
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

LaneExecutor::Claim LaneExecutor::ClaimLane(int64_t bytes) {
  absl::MutexLock lock(&mutex_);
  const int device = ChooseDevice(loads_);
  CHECK(device >= 0);
  Lane* lane = free_lanes_[device].front();
  free_lanes_[device].pop_front();
  --loads_[device].num_free_lanes;
  const int64_t other_bytes = loads_[device].outstanding_bytes;
  GiveBatch(absl::MakeSpan(loads_), device, bytes);
  ++num_held_;
  return {device, lane, bytes, other_bytes};
}

void LaneExecutor::ReleaseLane(const Claim& claim) {
  absl::MutexLock lock(&mutex_);
  // Behind the others: this one's thread is about to call `done`.
  free_lanes_[claim.device].push_back(claim.lane);
  ++loads_[claim.device].num_free_lanes;
  loads_[claim.device].outstanding_bytes -= claim.bytes;
}

void LaneExecutor::ReportFault(const Claim& claim, const DeviceFault& fault) {
  faults_->Report(devices_[claim.device].ordinal, fault.kind, fault.description);
}

}  // namespace swiglu::server
