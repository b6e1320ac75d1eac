// SPDX-License-Identifier: Apache-2.0
//
// The interface between batching and a device: a closed batch goes in, one completion comes back.
// `server/device` implements it; tests implement fakes. Knows no request, no gRPC and no CUDA.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "server/core/model.h"
#include "server/core/phase_times.h"
#include "server/core/slab.h"

namespace swiglu::server {

// Reads the bytes of inputs that lie in several pieces. It reads each input in order, and each byte
// once. One thread at a time.
class InputReader {
 public:
  virtual ~InputReader() = default;
  // Copies the next `size_bytes` of input k to `target`. REQUIRES: there are that many.
  virtual void Read(int k, std::byte* target, size_t size_bytes) = 0;
};

// One request's part of a batch: `num_elements` consecutive elements at each pointer, of the
// batch's dtype. The pointers follow the order of `Model::inputs` and `Model::outputs`; unused ones
// are nullptr. Output k either equals input k (in place) or overlaps no input and no other output.
struct Segment {
  std::array<const std::byte*, kMaxTensors> inputs{};
  std::array<std::byte*, kMaxTensors> outputs{};
  int64_t num_elements = 0;
  // Where the inputs come from whose pointer is not set. Only for an executor that `TakesReaders`.
  InputReader* reader = nullptr;
};

// The number that stands for the CPU where devices are counted.
inline constexpr int kCpuDevice = -1;

// Where the tensors of a request or batch lie.
struct Placement {
  // The CUDA device that has some of them in its memory; kCpuDevice: all are in host memory.
  int device = kCpuDevice;
  // All of them are in the memory of that device.
  bool is_resident = false;

  bool operator==(const Placement&) const = default;
};

// A closed batch: segments of one operation and dtype, of any lengths (0 is legal).
struct Batch {
  Op op = Op::kForward;
  Dtype dtype = Dtype::kFp16;
  std::vector<Segment> segments;
  // Of every segment.
  Placement placement = {};
  // The server holds no other request, so the thread that brings the batch may wait for it.
  bool is_alone = false;
};

// Of all segments together.
inline int64_t NumElements(const Batch& batch) {
  int64_t sum = 0;
  for (const Segment& segment : batch.segments) sum += segment.num_elements;
  return sum;
}

// How a batch's bytes got to the arithmetic; the metric label `path`.
enum class Path : uint8_t { kCpu, kMapped, kStaged, kRegion };
inline constexpr int kNumPaths = 4;

// The result of one batch. On error the outputs are unspecified.
struct Execution {
  absl::Status status;
  Path path = Path::kCpu;
  // A CUDA ordinal or kCpuDevice. It has no meaning for a batch that was given to no device.
  int device = kCpuDevice;
  PhaseTimes times;
};

// Runs closed batches on one kind of device. Thread-safe. Its destructor waits for the batches that
// it holds.
class Executor {
 public:
  using Done = absl::AnyInvocable<void(const Execution&)>;

  virtual ~Executor() = default;

  // How many batches may be in flight at once, over all devices; at least 1. The batcher never
  // exceeds it.
  virtual int num_lanes() const = 0;

  // The most segments that one batch may have; at least 1.
  virtual int max_segments() const = 0;

  // The most input bytes that a batch should have, so that others need not wait long; at least 1.
  // It is also the size of a chunk: a request with more input bytes is cut into chunks of this
  // size.
  virtual int64_t max_batch_bytes() const = 0;

  // True if it reads inputs that lie in several pieces as fast as inputs that lie in one.
  virtual bool TakesReaders() const { return false; }

  // Runs `batch`, or starts it and returns. `done` is called exactly once, from any thread,
  // possibly before `Run` returns, with no lock held. REQUIRES: `batch` and the memory it
  // points to outlive that call; fewer than `num_lanes()` batches are in flight. A device fault
  // comes back as INTERNAL: "device 0 failed"; once a device has failed for good, batches that
  // were not running come back as UNAVAILABLE.
  virtual void Run(const Batch& batch, Done done) = 0;

  // False once a device has failed for good; never true again.
  virtual bool healthy() const = 0;

  // The memory that this executor's batches read and write fastest.
  virtual SlabPool& slab_pool() = 0;

  // For logs and `swiglu status`: "cpu (AVX3, 2 lanes)", "cuda:0 NVIDIA H100 80GB HBM3".
  virtual std::string description() const = 0;
};

}  // namespace swiglu::server
