// SPDX-License-Identifier: Apache-2.0
//
// Each section is a function. Times are CUDA events around single launches, or a graph of many
// launches where the host would be the limit; inputs rotate through more memory than the L2 holds.
#include "tests/bench/cuda_points.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>
#include <memory>
#include <vector>

#include "swiglu/cuda.h"
#include "tests/bench/cuda_host.h"
#include "tests/bench/cuda_mlp_points.h"
#include "tests/bench/cuda_timer.h"

namespace swiglu::bench {
namespace {

enum class Memory { kDevice, kPinned };

// Bytes of one kind of memory, filled with small numbers of every dtype.
class Buffer {
 public:
  Buffer(Memory memory, size_t num_bytes) : memory_(memory) {
    if (memory == Memory::kDevice) {
      Check(cudaMalloc(&data_, num_bytes));
    } else {
      Check(cudaHostAlloc(&data_, num_bytes, cudaHostAllocDefault));
    }
    Check(cudaMemset(data_, 0x3C, num_bytes));
  }
  ~Buffer() { memory_ == Memory::kDevice ? cudaFree(data_) : cudaFreeHost(data_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  std::byte* data() const { return static_cast<std::byte*>(data_); }

 private:
  const Memory memory_;
  void* data_ = nullptr;
};

// One launch's worth of work.
struct Problem {
  Op op;
  Dtype dtype;
  std::vector<ForwardSegment> forward;
  std::vector<BackwardSegment> backward;
  LaunchLimits limits;

  void Launch(cudaStream_t stream) const {
    Check(op == Op::kForward ? ForwardCuda(dtype, forward, limits, stream)
                             : BackwardCuda(dtype, backward, limits, stream));
  }
};

// Where a segment's three tensors begin, in elements past a 256-byte boundary.
using Offsets = std::array<int64_t, 3>;

// Forward out of place into the third tensor, backward in place, over tensors of `n` elements.
void AddSegment(Problem& problem, std::byte* at, int64_t n, size_t tensor_bytes,
                const Offsets& offsets) {
  const auto element_bytes = static_cast<int64_t>(ElementBytes(problem.dtype));
  std::byte* tensors[3];
  for (int k = 0; k < 3; ++k) tensors[k] = at + k * tensor_bytes + offsets[k] * element_bytes;
  if (problem.op == Op::kForward) {
    problem.forward.push_back({tensors[0], tensors[1], tensors[2], n});
  } else {
    problem.backward.push_back(
        {tensors[0], tensors[1], tensors[2], tensors[0], tensors[1], tensors[2], n});
  }
}

// `num_copies` problems of `num_segments` segments each, in one buffer.
struct Workload {
  std::unique_ptr<Buffer> buffer;
  std::vector<Problem> problems;
};

size_t TensorBytes(Dtype dtype, int64_t n) {
  return (static_cast<size_t>(n) * ElementBytes(dtype) + 255 + 256) / 256 * 256;
}

Workload MakeWorkload(Op op, Dtype dtype, int64_t n, Memory memory, int num_segments = 1,
                      const Offsets& offsets = {}, LaunchLimits limits = {}) {
  const size_t tensor_bytes = TensorBytes(dtype, n);
  const size_t problem_bytes = 3 * tensor_bytes * num_segments;
  // Three times an L2 of 50 MB, but no more than 64 problems.
  const size_t num_copies = std::clamp<size_t>((size_t{150} << 20) / problem_bytes + 1, 1, 64);
  Workload workload;
  workload.buffer = std::make_unique<Buffer>(memory, problem_bytes * num_copies);
  for (size_t copy = 0; copy < num_copies; ++copy) {
    Problem problem{op, dtype, {}, {}, limits};
    for (int s = 0; s < num_segments; ++s) {
      std::byte* at = workload.buffer->data() + copy * problem_bytes + 3 * tensor_bytes * s;
      AddSegment(problem, at, n, tensor_bytes, offsets);
    }
    workload.problems.push_back(std::move(problem));
  }
  return workload;
}

const Problem& Nth(const Workload& workload, int i) {
  return workload.problems[i % workload.problems.size()];
}

// Time of one launch of the workload's problems in turn: by events around each, of many in a row,
// or in a graph.
Summary Events(const Timer& timer, const Workload& workload, int count) {
  return timer.Events(count, [&](int i) { Nth(workload, i).Launch(timer.stream()); });
}
Summary InARow(const Timer& timer, const Workload& workload, int count) {
  return timer.InARow(count, [&](int i) { Nth(workload, i).Launch(timer.stream()); });
}
Summary Graph(const Timer& timer, const Workload& workload) {
  return timer.Graph(200, [&](int i) { Nth(workload, i).Launch(timer.stream()); });
}

int NumLaunches(int64_t n) { return n < 1 << 24 ? 400 : n < 1 << 28 ? 120 : 40; }

// A large copy on the device, bytes read plus bytes written: what everything is held against.
double CopyGbS(const Timer& timer) {
  constexpr size_t kBytes = size_t{1} << 30;
  const Buffer from(Memory::kDevice, kBytes), to(Memory::kDevice, kBytes);
  const Summary time = timer.Events(50, [&](int) {
    Check(
        cudaMemcpyAsync(to.data(), from.data(), kBytes, cudaMemcpyDeviceToDevice, timer.stream()));
  });
  return 2.0 * kBytes / time.median / 1e3;
}

Row MakeRow(const char* section, Op op, Dtype dtype, int64_t n, Summary time) {
  return {.section = section,
          .op = Name(op),
          .dtype = Name(dtype),
          .n = n,
          .us = time.median,
          .spread = time.spread,
          .gb_s = BytesMoved(op, dtype, n) / time.median / 1e3};
}

// ---- The sections ----

void MeasureSweep(const Timer& timer, double copy_gb_s, Report& report) {
  std::vector<int64_t> sizes = {22'544'384, 22'544'381};
  for (int exponent = 10; exponent <= 30; ++exponent) sizes.push_back(int64_t{1} << exponent);
  std::sort(sizes.begin(), sizes.end());
  for (const Op op : kOps) {
    for (const Dtype dtype : kDtypes) {
      for (const int64_t n : sizes) {
        const Workload workload = MakeWorkload(op, dtype, n, Memory::kDevice);
        const bool small = n <= 1 << 20;
        const Summary time =
            small ? Graph(timer, workload) : Events(timer, workload, NumLaunches(n));
        Row row = MakeRow("sweep", op, dtype, n, time);
        row.note = small ? "in a graph" : "";
        row.baseline = "a large copy";
        row.ratio = row.gb_s / copy_gb_s;
        report.Add(row);
      }
    }
  }
}

void MeasureAlignment(const Timer& timer, Report& report) {
  constexpr int64_t kN = 22'544'384;
  struct Case {
    const char* note;
    int64_t fewer;
    Offsets offsets;
  };
  for (const Op op : kOps) {
    for (const Dtype dtype : kDtypes) {
      double aligned_us = 0;
      for (const Case& c :
           {Case{"aligned", 0, {}}, Case{"odd n", 3, {}}, Case{"all 1 element off", 0, {1, 1, 1}},
            Case{"1, 2 and 3 elements off", 0, {1, 2, 3}}}) {
        const Workload workload =
            MakeWorkload(op, dtype, kN - c.fewer, Memory::kDevice, 1, c.offsets);
        Row row = MakeRow("alignment", op, dtype, kN - c.fewer, Events(timer, workload, 200));
        if (aligned_us == 0) aligned_us = row.us;
        row.note = c.note;
        row.baseline = "aligned";
        row.ratio = aligned_us / row.us;
        report.Add(row);
      }
    }
  }
}

void MeasureHost(const Timer& timer, Report& report) {
  constexpr int kLaunches = 3000;
  double single_us = 0;
  for (const int num_segments : {1, 16, 64, 256}) {
    const Workload workload =
        MakeWorkload(Op::kForward, Dtype::kBf16, 64, Memory::kDevice, num_segments);
    std::vector<double> times;
    for (int round = 0; round <= 7; ++round) {
      const auto begin = std::chrono::steady_clock::now();
      for (int i = 0; i < kLaunches; ++i) workload.problems[0].Launch(timer.stream());
      const std::chrono::duration<double, std::micro> spent =
          std::chrono::steady_clock::now() - begin;
      Check(cudaStreamSynchronize(timer.stream()));
      if (round > 0) times.push_back(spent.count() / kLaunches);
    }
    Row row = MakeRow("host cost of a launch", Op::kForward, Dtype::kBf16, 64, Summarize(times));
    if (single_us == 0) single_us = row.us;
    row.note = std::to_string(num_segments) + " segments";
    row.gb_s = 0;
    row.baseline = "one segment";
    row.ratio = single_us / row.us;
    report.Add(row);
  }
}

void MeasureSegments(const Timer& timer, Report& report) {
  struct Case {
    int num_segments;
    int64_t n;
  };
  for (const Op op : kOps) {
    for (const Dtype dtype : kDtypes) {
      for (const Case& c : {Case{64, 16384}, Case{256, 4096}, Case{16, 65536}}) {
        const Workload whole = MakeWorkload(op, dtype, c.num_segments * c.n, Memory::kDevice);
        const Workload parts = MakeWorkload(op, dtype, c.n, Memory::kDevice, c.num_segments);
        const Summary one = Graph(timer, whole), many = Graph(timer, parts);
        Row row = MakeRow("segments", op, dtype, c.num_segments * c.n, many);
        row.note = std::to_string(c.num_segments) + " of " + std::to_string(c.n);
        row.baseline = "one contiguous launch";
        row.ratio = one.median / many.median;
        report.Add(row);
      }
    }
  }
}

// One stream, launch after launch on pinned host memory, few blocks; GB/s count both directions,
// and the ratio is the rate in over what a copy from pinned memory to the device reaches.
void MeasureMapped(const Timer& timer, Report& report) {
  constexpr size_t kCopyBytes = size_t{256} << 20;
  const Buffer from(Memory::kPinned, kCopyBytes), to(Memory::kDevice, kCopyBytes);
  const Summary copy = timer.Events(20, [&](int) {
    Check(cudaMemcpyAsync(to.data(), from.data(), kCopyBytes, cudaMemcpyDefault, timer.stream()));
  });
  const double copy_gb_s = static_cast<double>(kCopyBytes) / copy.median / 1e3;
  for (const Op op : kOps) {
    for (size_t bytes = size_t{32} << 10; bytes <= size_t{64} << 20; bytes *= 4) {
      const auto n = static_cast<int64_t>(bytes / 2);
      const Workload workload =
          MakeWorkload(op, Dtype::kBf16, n, Memory::kPinned, 1, {}, LaunchLimits{.max_blocks = 32});
      const int count = static_cast<int>(std::clamp<size_t>((size_t{2} << 30) / bytes, 20, 1000));
      Row row = MakeRow("mapped", op, Dtype::kBf16, n, InARow(timer, workload, count));
      const double in_gb_s = row.gb_s * (op == Op::kForward ? 2.0 / 3 : 0.5);
      char note[64];
      std::snprintf(note, sizeof(note), "%zu KiB, %.1f GB/s in", bytes >> 10, in_gb_s);
      row.note = note;
      row.baseline = "a pinned copy in";
      row.ratio = in_gb_s / copy_gb_s;
      report.Add(row);
    }
  }
}

}  // namespace

bool MeasureCuda(const std::string& filter, Report& report) {
  if (!AddDeviceFact(report)) return false;
  const Timer timer;
  const double copy_gb_s = CopyGbS(timer);
  report.AddFact("copy", std::to_string(copy_gb_s) + " GB/s read and written, 1 GiB on the device");
  const auto wanted = [&](const char* section) {
    return std::string(section).find(filter) != std::string::npos;
  };
  if (wanted("sweep")) MeasureSweep(timer, copy_gb_s, report);
  if (wanted("alignment")) MeasureAlignment(timer, report);
  if (wanted("host")) MeasureHost(timer, report);
  if (wanted("segments")) MeasureSegments(timer, report);
  if (wanted("mapped")) MeasureMapped(timer, report);
  if (wanted("mlp, GPU")) MeasureCudaMlp(timer, copy_gb_s, report);
  return true;
}

}  // namespace swiglu::bench
