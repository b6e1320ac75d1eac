// SPDX-License-Identifier: Apache-2.0
//
// The regions that clients have registered: their names, their limits, who uses them, and when
// their memory is closed. This file depends neither on the protocol nor on gRPC or CUDA; a
// RegionOpener opens the memory.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "server/core/clock.h"
#include "server/core/region.h"

namespace swiglu::server {

struct RegionLimits {
  // Which kinds clients may register, by RegionKind.
  std::array<bool, kNumRegionKinds> enabled{};
  // The most registered regions, of both kinds together. >= 1.
  int64_t max_regions = 1024;
  // The most bytes of one region, and of all system regions together. >= 1.
  int64_t max_region_bytes = std::numeric_limits<int64_t>::max();
  int64_t max_pinned_bytes = std::numeric_limits<int64_t>::max();
  // A region that no request has used for this long is unregistered; zero: never.
  Clock::duration idle_timeout{0};
};

// The client that registered a region, or a group of clients that contains it. Thread-safe.
class RegionOwner {
 public:
  virtual ~RegionOwner() = default;
  // Whether this client or the whole group has ended, so that nobody will unregister the region.
  // False if that is not known.
  virtual bool HasEnded() const = 0;
};

// One registered region. Thread-safe.
class Region {
 public:
  const std::string& name() const { return name_; }
  RegionKind kind() const { return kind_; }
  int64_t size_bytes() const { return size_bytes_; }
  const RegionMemory& memory() const { return *memory_; }

 private:
  friend class RegionRegistry;
  std::string name_;
  RegionKind kind_ = RegionKind::kSystem;
  int64_t size_bytes_ = 0;
  int64_t offset_ = 0;
  std::unique_ptr<RegionMemory> memory_;
  std::shared_ptr<const RegionOwner> owner_;  // nullptr: unknown
  mutable std::atomic<Clock::time_point> last_used_{};
  // Whether the region's file has become too short, or the region is abandoned. Then no new use
  // begins.
  mutable std::atomic<bool> is_lost_{false};
};

// A use of a region. While one lives, the memory stays open, even if the region is unregistered.
using RegionUse = std::shared_ptr<const Region>;

// What the protocol reports about a region.
struct RegionInfo {
  std::string name;
  int64_t size_bytes = 0;
  int64_t offset = 0;  // in the file
  int device = kCpuDevice;
};

// A name has at most one region, of either kind. `Unregister` and `DropAbandoned` free a region's
// name at once, and no new use of the region begins. A region whose file has become too short is
// lost. No new use of a lost region begins. The next `DropAbandoned`, or the next `Register` for
// its name, frees the name. After the end of the last use, the next `CloseReleased` closes the
// memory. Until then its bytes count.
//
// `Register`, `Unregister`, `DropAbandoned` and `CloseReleased` may block, and only one thread at a
// time may call them. The other methods are thread-safe and do not block.
class RegionRegistry {
 public:
  // The longest name, in bytes.
  static constexpr size_t kMaxNameBytes = 255;

  // `opener` must outlive the registry. `released` is called, on any thread, when there is
  // something for CloseReleased to do. `released` must not call the registry.
  RegionRegistry(RegionLimits limits, RegionOpener* opener, std::function<void()> released);
  // REQUIRES: no use is left.
  ~RegionRegistry();
  RegionRegistry(const RegionRegistry&) = delete;
  RegionRegistry& operator=(const RegionRegistry&) = delete;

  // Opens and registers a region. If the name is taken or there is no room, first drops abandoned
  // regions. A refusal leaves nothing of the new region open.
  std::optional<RegionRefusal> Register(const std::string& name, const RegionSpec& spec,
                                        std::shared_ptr<const RegionOwner> owner,
                                        Clock::time_point now);
  // Unregisters the region of that kind and name, if there is one; if `name` is empty, all regions
  // of that kind.
  void Unregister(RegionKind kind, absl::string_view name);
  // Unregisters regions whose owner has ended, that nobody has used for too long, or that are lost.
  void DropAbandoned(Clock::time_point now);
  // Closes the memory of unregistered regions that nobody uses any more.
  void CloseReleased();

  // The region of that name, of either kind; nullptr if there is none. Asks the system whether the
  // file still has the whole region. If it does not, or if a batch has touched a part that was
  // gone, marks the region as lost: this call and all later ones return nullptr for this region.
  RegionUse Find(absl::string_view name, Clock::time_point now) const;
  // The regions of that kind, in the order of their names: the one with that name, or all if `name`
  // is empty.
  std::vector<RegionInfo> List(RegionKind kind, absl::string_view name) const;

  const RegionLimits& limits() const { return limits_; }
  // Whether clients may register regions of any kind.
  bool is_enabled() const { return limits_.enabled[0] || limits_.enabled[1]; }
  int64_t num_regions(RegionKind kind) const { return Read(num_regions_, kind); }
  // Includes unregistered regions whose memory is still open.
  int64_t size_bytes(RegionKind kind) const { return Read(size_bytes_, kind); }
  int64_t num_refused(RegionFault fault) const {
    return num_refused_[static_cast<size_t>(fault)].load(std::memory_order_relaxed);
  }

 private:
  using Totals = std::array<std::atomic<int64_t>, kNumRegionKinds>;

  static int64_t Read(const Totals& totals, RegionKind kind) {
    return totals[static_cast<size_t>(kind)].load(std::memory_order_relaxed);
  }
  // Why the region cannot be registered, as far as that is known before its memory is opened.
  std::optional<RegionRefusal> WhyNot(const std::string& name, const RegionSpec& spec) const;
  std::optional<RegionRefusal> Open(const std::string& name, const RegionSpec& spec,
                                    std::shared_ptr<const RegionOwner> owner,
                                    Clock::time_point now);
  // Unregisters every region for which `is_meant` holds.
  template <typename Predicate>
  void UnregisterIf(Predicate is_meant);
  bool IsAbandoned(const RegionUse& region, Clock::time_point now) const;
  // Keeps `region`, which nobody uses any more, for CloseReleased.
  void Release(Region* region);

  const RegionLimits limits_;
  RegionOpener* const opener_;
  const std::function<void()> released_callback_;
  Totals num_regions_{};
  Totals size_bytes_{};
  std::array<std::atomic<int64_t>, kNumRegionFaults> num_refused_{};
  mutable absl::Mutex mutex_;
  absl::flat_hash_map<std::string, RegionUse> regions_ ABSL_GUARDED_BY(mutex_);
  absl::Mutex released_mutex_;
  std::vector<std::unique_ptr<Region>> released_ ABSL_GUARDED_BY(released_mutex_);
};

}  // namespace swiglu::server
