// SPDX-License-Identifier: Apache-2.0
//
// Names, counts and the end of regions. See the header.
#include "server/regions/region_registry.h"

#include <algorithm>
#include <utility>

#include "server/log/log.h"

namespace swiglu::server {
namespace {

bool IsForLackOfRoom(RegionFault fault) {
  return fault == RegionFault::kNameInUse || fault == RegionFault::kTooMany ||
         fault == RegionFault::kPinnedLimit;
}

// Whether a part of the memory has gone.
bool HasGone(const RegionMemory& memory) { return memory.HasHole() || memory.IsShrunk(); }

}  // namespace

RegionRegistry::RegionRegistry(RegionLimits limits, RegionOpener* opener,
                               std::function<void()> released)
    : limits_(limits), opener_(opener), released_callback_(std::move(released)) {}

RegionRegistry::~RegionRegistry() {
  UnregisterIf([](const RegionUse&) { return true; });
  CloseReleased();
  for (const auto& bytes : size_bytes_) CHECK(bytes.load() == 0);
}

std::optional<RegionRefusal> RegionRegistry::Register(const std::string& name,
                                                      const RegionSpec& spec,
                                                      std::shared_ptr<const RegionOwner> owner,
                                                      Clock::time_point now) {
  std::optional<RegionRefusal> refusal = WhyNot(name, spec);
  if (refusal.has_value() && IsForLackOfRoom(refusal->fault)) {
    // What abandoned regions hold is for those who ask now.
    DropAbandoned(now);
    CloseReleased();
    refusal = WhyNot(name, spec);
  }
  if (!refusal.has_value()) refusal = Open(name, spec, std::move(owner), now);
  if (refusal.has_value()) {
    num_refused_[static_cast<size_t>(refusal->fault)].fetch_add(1, std::memory_order_relaxed);
  }
  return refusal;
}

std::optional<RegionRefusal> RegionRegistry::WhyNot(const std::string& name,
                                                    const RegionSpec& spec) const {
  const auto kind = static_cast<size_t>(spec.kind());
  if (!limits_.enabled[kind]) return RegionRefusal{RegionFault::kDisabled};
  if (name.empty() || name.size() > kMaxNameBytes) {
    return RegionRefusal{RegionFault::kName, static_cast<int64_t>(name.size()),
                         static_cast<int64_t>(kMaxNameBytes)};
  }
  if (spec.size_bytes == 0) return RegionRefusal{RegionFault::kSize};
  constexpr auto kMost = static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
  const auto bytes = static_cast<int64_t>(std::min(spec.size_bytes, kMost));
  if (bytes > limits_.max_region_bytes) {
    return RegionRefusal{RegionFault::kTooLarge, bytes, limits_.max_region_bytes};
  }
  const int64_t used_bytes = size_bytes(RegionKind::kSystem);
  if (spec.kind() == RegionKind::kSystem && bytes > limits_.max_pinned_bytes - used_bytes) {
    return RegionRefusal{RegionFault::kPinnedLimit, bytes, limits_.max_pinned_bytes};
  }
  absl::MutexLock lock(&mutex_);
  if (regions_.contains(name)) return RegionRefusal{RegionFault::kNameInUse};
  const auto num_regions = static_cast<int64_t>(regions_.size());
  if (num_regions < limits_.max_regions) return std::nullopt;
  return RegionRefusal{RegionFault::kTooMany, num_regions, limits_.max_regions};
}

std::optional<RegionRefusal> RegionRegistry::Open(const std::string& name, const RegionSpec& spec,
                                                  std::shared_ptr<const RegionOwner> owner,
                                                  Clock::time_point now) {
  OpenedRegion opened = opener_->Open(spec);
  if (const auto* refusal = std::get_if<RegionRefusal>(&opened)) return *refusal;
  auto* const region = new Region;
  region->name_ = name;
  region->kind_ = spec.kind();
  region->size_bytes_ = static_cast<int64_t>(spec.size_bytes);
  if (const auto* file = std::get_if<SystemRegionSource>(&spec.source)) {
    region->offset_ = static_cast<int64_t>(file->offset);
  }
  region->memory_ = std::move(std::get<std::unique_ptr<RegionMemory>>(opened));
  region->owner_ = std::move(owner);
  region->last_used_ = now;
  const auto kind = static_cast<size_t>(spec.kind());
  size_bytes_[kind] += region->size_bytes_;
  ++num_regions_[kind];
  absl::MutexLock lock(&mutex_);
  regions_.emplace(name, RegionUse(region, [this](Region* unused) { Release(unused); }));
  return std::nullopt;
}

void RegionRegistry::Release(Region* region) {
  {
    absl::MutexLock lock(&released_mutex_);
    released_.emplace_back(region);
  }
  if (released_callback_) released_callback_();
}

void RegionRegistry::CloseReleased() {
  std::vector<std::unique_ptr<Region>> released;
  {
    absl::MutexLock lock(&released_mutex_);
    released.swap(released_);
  }
  for (std::unique_ptr<Region>& region : released) {
    const auto kind = static_cast<size_t>(region->kind());
    const int64_t bytes = region->size_bytes();
    region.reset();
    size_bytes_[kind] -= bytes;
  }
}

template <typename Predicate>
void RegionRegistry::UnregisterIf(Predicate is_meant) {
  // They are released after the lock.
  std::vector<RegionUse> unregistered;
  absl::MutexLock lock(&mutex_);
  for (auto it = regions_.begin(); it != regions_.end();) {
    const auto found = it++;
    if (!is_meant(found->second)) continue;
    --num_regions_[static_cast<size_t>(found->second->kind())];
    unregistered.push_back(std::move(found->second));
    regions_.erase(found);
  }
}

void RegionRegistry::Unregister(RegionKind kind, absl::string_view name) {
  UnregisterIf([kind, name](const RegionUse& region) {
    return region->kind() == kind && (name.empty() || region->name() == name);
  });
  CloseReleased();
}

bool RegionRegistry::IsAbandoned(const RegionUse& region, Clock::time_point now) const {
  if (region->is_lost_.load(std::memory_order_relaxed) || HasGone(region->memory())) return true;
  if (region->owner_ != nullptr && region->owner_->HasEnded()) return true;
  if (limits_.idle_timeout == Clock::duration::zero()) return false;
  // The registry and the caller have one each.
  if (region.use_count() > 2) region->last_used_.store(now, std::memory_order_relaxed);
  return now - region->last_used_.load(std::memory_order_relaxed) >= limits_.idle_timeout;
}

void RegionRegistry::DropAbandoned(Clock::time_point now) {
  std::vector<RegionUse> regions;
  {
    absl::MutexLock lock(&mutex_);
    regions.reserve(regions_.size());
    for (const auto& [name, region] : regions_) regions.push_back(region);
  }
  // Asks the system about each owner and file, and so without the lock.
  for (const RegionUse& region : regions) {
    if (IsAbandoned(region, now)) region->is_lost_.store(true, std::memory_order_relaxed);
  }
  UnregisterIf([](const RegionUse& region) {
    if (!region->is_lost_.load(std::memory_order_relaxed)) return false;
    LOG(INFO,
        "a shared memory region of {} bytes is unregistered: its client has left it, or cut its "
        "file short",
        region->size_bytes());
    return true;
  });
}

RegionUse RegionRegistry::Find(absl::string_view name, Clock::time_point now) const {
  RegionUse region;
  {
    absl::MutexLock lock(&mutex_);
    const auto found = regions_.find(name);
    if (found == regions_.end()) return nullptr;
    region = found->second;
  }
  if (region->is_lost_.load(std::memory_order_relaxed)) return nullptr;
  if (HasGone(region->memory())) {
    region->is_lost_.store(true, std::memory_order_relaxed);
    return nullptr;
  }
  region->last_used_.store(now, std::memory_order_relaxed);
  return region;
}

std::vector<RegionInfo> RegionRegistry::List(RegionKind kind, absl::string_view name) const {
  std::vector<RegionInfo> found;
  {
    absl::MutexLock lock(&mutex_);
    for (const auto& [key, region] : regions_) {
      if (region->kind() != kind || region->is_lost_.load(std::memory_order_relaxed)) continue;
      if (!name.empty() && key != name) continue;
      found.push_back({key, region->size_bytes(), region->offset_, region->memory().device()});
    }
  }
  std::sort(found.begin(), found.end(),
            [](const RegionInfo& a, const RegionInfo& b) { return a.name < b.name; });
  return found;
}

}  // namespace swiglu::server
