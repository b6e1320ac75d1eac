// SPDX-License-Identifier: Apache-2.0
//
// A region is memory that a client shares with the server under a name. This file says what a
// region is made from. It also has the interface through which the registry of regions asks the
// device to open a region's memory. The file depends neither on the protocol nor on CUDA.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <variant>

#include "server/core/executor.h"

namespace swiglu::server {

// kSystem: a file in /dev/shm. kCuda: memory of a GPU. The metric label `memory`.
enum class RegionKind : uint8_t { kSystem, kCuda };
inline constexpr int kNumRegionKinds = 2;

// Why a region is refused; the metric label `reason`.
enum class RegionFault : uint8_t {
  kDisabled,     // the server takes no regions of that kind
  kName,         // no name, or one that is too long
  kNameInUse,    // another region has the name
  kTooMany,      // max_regions are registered
  kTooLarge,     // larger than max_region_bytes
  kPinnedLimit,  // all system regions together would exceed max_pinned_bytes
  kSize,         // no bytes, or more than the file or the allocation has
  kOffset,       // not a multiple of the page size
  kKey,          // a file that may not be opened
  kHandle,       // memory of a GPU that cannot be opened
  kDevice,       // the server does not use that device
  kNoMemory,     // the system cannot map or pin it
};
inline constexpr int kNumRegionFaults = 12;

// Why a region was refused, with the numbers for the error message. What the numbers mean depends
// on the fault.
struct RegionRefusal {
  RegionFault fault = RegionFault::kDisabled;
  int64_t found = 0;
  int64_t limit = 0;
};

// A part of a file. The file's name for `shm_open` is `key`, and the part begins at `offset`.
struct SystemRegionSource {
  std::string key;
  uint64_t offset = 0;
};

// A memory handle as cudaIpcGetMemHandle gives it. The region begins where the allocation begins.
struct CudaRegionSource {
  std::string handle;
  int64_t device = 0;  // a CUDA ordinal
};

// What a client asks for.
struct RegionSpec {
  uint64_t size_bytes = 0;
  std::variant<SystemRegionSource, CudaRegionSource> source;

  RegionKind kind() const { return static_cast<RegionKind>(source.index()); }
};

// The opened memory of a region. The destructor closes it. REQUIRES: no batch uses it then.
class RegionMemory {
 public:
  virtual ~RegionMemory() = default;

  // The address at which the executor's batches find the region.
  std::byte* data() const { return data_; }
  // The CUDA device that has the memory; kCpuDevice for memory of the host.
  int device() const { return device_; }

  // Whether the region's file has become too short, so that a part of the region is gone. Asks the
  // system. Thread-safe.
  virtual bool IsShrunk() const { return false; }
  // Whether a batch has touched a part that was gone. Some results of that batch are wrong.
  // Thread-safe.
  virtual bool HasHole() const { return false; }

 protected:
  RegionMemory(std::byte* data, int device) : data_(data), device_(device) {}

 private:
  std::byte* const data_;
  const int device_;
};

using OpenedRegion = std::variant<std::unique_ptr<RegionMemory>, RegionRefusal>;

// Opens the memory of regions, so that the batches of one executor may use it. Thread-safe. Opening
// may block for one second per 10 GB.
class RegionOpener {
 public:
  virtual ~RegionOpener() = default;
  // Whether this server can have regions of that kind at all.
  virtual bool Supports(RegionKind kind) const = 0;
  // On a refusal nothing is left open.
  virtual OpenedRegion Open(const RegionSpec& spec) = 0;
};

}  // namespace swiglu::server
