// SPDX-License-Identifier: Apache-2.0
//
// lane_bench: times the ways of a batch through CUDA lanes, mapped with few and many blocks and
// staged, to see where each is best. BF16, in place, on device 0. Ways alternate within one run;
// every time is a median. It judges nothing.
#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "server/device/cuda_lane.h"
#include "server/device/warm_up.h"
#include "server/memory/pinned_memory.h"
#include "server/memory/slab_pool.h"
#include "tests/bench/cuda_host.h"
#include "tests/bench/cuda_resident_work.h"
#include "tests/bench/lane_traffic.h"
#include "tests/bench/report.h"
#include "version/version.h"

namespace swiglu::bench {
namespace {

constexpr int kMostLanes = 3;
constexpr size_t kSmallestBytes = size_t{4} << 10;  // of a batch's inputs
constexpr size_t kLargestBytes = size_t{64} << 20;
constexpr std::chrono::milliseconds kWindow{20};  // of sustained traffic

struct Way {
  std::string name;
  Planner planner;
};

Way Mapped(int max_blocks) {
  return {"mapped, " + (max_blocks == 0 ? "any" : std::to_string(max_blocks)) + " blocks",
          [max_blocks](const server::Batch&) { return server::PlanMapped(max_blocks); }};
}

Way Staged() {
  return {"staged", [](const server::Batch& batch) {
            return server::PlanStaged(batch, server::kLaneBufferBytes);
          }};
}

// The first is what the others are held against.
std::vector<Way> Ways() {
  return {Mapped(32), Mapped(8), Mapped(16), Mapped(64), Mapped(0), Staged()};
}

// A batch in place in a slab of its own.
struct Work {
  server::Slab slab;
  server::Batch batch;

  int64_t num_elements() const {
    int64_t sum = 0;
    for (const server::Segment& segment : batch.segments) sum += segment.num_elements;
    return sum;
  }
};

template <typename T>
T OrExit(absl::StatusOr<T> value) {
  if (value.ok()) return *std::move(value);
  std::fprintf(stderr, "%s\n", value.status().ToString().c_str());
  std::exit(1);
}

Work MakeWork(server::SlabPool& pool, server::Op op, size_t input_bytes, int num_segments) {
  const server::Model& model = server::GetModel(op, Dtype::kBf16);
  const size_t num_inputs = model.inputs.size();
  const size_t tensor_bytes = input_bytes / num_inputs / num_segments / 2 * 2;
  const size_t stride =
      (tensor_bytes + server::kSlabAlignment - 1) / server::kSlabAlignment * server::kSlabAlignment;
  Work work{OrExit(pool.Acquire(stride * num_inputs * num_segments)),
            {&model, std::vector<server::Segment>(num_segments)}};
  std::fill_n(work.slab.data.get(), work.slab.size_bytes, std::byte{0x3C});
  std::byte* next = work.slab.data.get();
  for (server::Segment& segment : work.batch.segments) {
    segment.num_elements = static_cast<int64_t>(tensor_bytes / 2);
    for (size_t k = 0; k < num_inputs; ++k) {
      segment.inputs[k] = next;
      if (k < model.outputs.size()) segment.outputs[k] = next;
      next += stride;
    }
  }
  return work;
}

// Lanes of device 0 and the memory of their batches.
class Bench {
 public:
  explicit Bench(Report& report)
      : report_(report),
        pool_(server::MakePinnedMemory(0, nullptr), {.capacity_bytes = size_t{1} << 30}) {
    for (std::unique_ptr<server::CudaLane>& lane : lanes_) {
      lane = OrExit(server::CudaLane::Create(0));
      if (absl::Status status = server::WarmUp(*lane, 0, pool_); !status.ok()) {
        std::fprintf(stderr, "%s\n", status.ToString().c_str());
        std::exit(1);
      }
    }
  }

  void MeasureAlone(server::Op op) {
    constexpr int kRounds = 51;
    for (size_t bytes = kSmallestBytes; bytes <= kLargestBytes; bytes *= 4) {
      const Work work = MakeWork(pool_, op, bytes, 1);
      Compare("alone, from launch to completion", work, "", kRounds, [&](const Way& way) {
        return RunAlone(*lanes_[0], work.batch, way.planner).count() * 1e6;
      });
    }
  }

  void MeasureSustained(server::Op op, int num_lanes) {
    const std::string section = "sustained, lanes: " + std::to_string(num_lanes);
    for (size_t bytes = kSmallestBytes; bytes <= kLargestBytes; bytes *= 4) {
      const std::vector<Work> works = MakeWorks(op, num_lanes, bytes, 1);
      Compare(section, works[0], "", 5, [&](const Way& way) { return Window(works, way); });
    }
  }

  // What many tensors of a batch cost those that copy each of them.
  void MeasureSegments(server::Op op) {
    for (const int num_segments : {1, 4, 16, 64, 256}) {
      const std::vector<Work> works = MakeWorks(op, 2, size_t{16} << 20, num_segments);
      Compare("sustained, lanes: 2, by segments", works[0],
              ", " + std::to_string(num_segments) + " segments", 5,
              [&](const Way& way) { return Window(works, way); });
    }
  }

  void MeasureBesideResidentWork(server::Op op) {
    CudaResidentWork resident;
    resident.Run();
    const double alone_us = Summarize(resident.Run()).median;
    report_.AddFact("resident", "forward bf16 on 3 x 256 MiB in device memory: " +
                                    std::to_string(alone_us) + " us alone");
    std::vector<Row> resident_rows;  // a table of their own, behind that of the batches
    for (size_t bytes = kSmallestBytes; bytes <= kLargestBytes; bytes *= 4) {
      const std::vector<Work> works = MakeWorks(op, 2, bytes, 1);
      std::map<std::string, std::vector<double>> resident_us;  // by way
      Compare("batches beside resident work, lanes: 2", works[0], "", 3, [&](const Way& way) {
        LaneTraffic traffic(Lanes(works.size()), Batches(works), way.planner);
        for (const double us : resident.Run()) resident_us[way.name].push_back(us);
        return traffic.Stop().count() * 1e6;
      });
      for (const auto& [name, times] : resident_us) {
        resident_rows.push_back(ResidentRow(times, alone_us, works[0], name));
      }
    }
    for (const Row& row : resident_rows) report_.Add(row);
  }

 private:
  std::vector<Work> MakeWorks(server::Op op, int count, size_t input_bytes, int num_segments) {
    std::vector<Work> works;
    for (int i = 0; i < count; ++i) {
      works.push_back(MakeWork(pool_, op, input_bytes, num_segments));
    }
    return works;
  }

  std::vector<server::Lane*> Lanes(size_t count) const {
    std::vector<server::Lane*> lanes;
    for (size_t i = 0; i < count; ++i) lanes.push_back(lanes_[i].get());
    return lanes;
  }

  static std::vector<const server::Batch*> Batches(const std::vector<Work>& works) {
    std::vector<const server::Batch*> batches;
    for (const Work& work : works) batches.push_back(&work.batch);
    return batches;
  }

  // Microseconds of a batch while every lane has one.
  double Window(const std::vector<Work>& works, const Way& way) const {
    LaneTraffic traffic(Lanes(works.size()), Batches(works), way.planner);
    std::this_thread::sleep_for(kWindow);
    return traffic.Stop().count() * 1e6;
  }

  // Measures the ways in turn, `num_rounds` times, and reports their medians.
  void Compare(const std::string& section, const Work& work, const std::string& note,
               int num_rounds, const std::function<double(const Way&)>& measure_us) {
    const std::vector<Way> ways = Ways();
    std::vector<std::vector<double>> times(ways.size());
    for (int round = 0; round < num_rounds; ++round) {
      for (size_t i = 0; i < ways.size(); ++i) times[i].push_back(measure_us(ways[i]));
    }
    const double baseline_us = Summarize(times[0]).median;
    for (size_t i = 0; i < ways.size(); ++i) {
      const Summary time = Summarize(times[i]);
      report_.Add({.section = section,
                   .op = std::string(server::OpLabel(work.batch.model->op)),
                   .dtype = Name(Dtype::kBf16),
                   .n = work.num_elements(),
                   .note = ways[i].name + note,
                   .us = time.median,
                   .spread = time.spread,
                   .gb_s = static_cast<double>(server::BatchBytes(work.batch)) / time.median / 1e3,
                   .baseline = ways[0].name,
                   .ratio = baseline_us / time.median});
    }
  }

  static Row ResidentRow(const std::vector<double>& times_us, double alone_us, const Work& work,
                         const std::string& way) {
    const double worst_us = *std::max_element(times_us.begin(), times_us.end());
    const Summary time = Summarize(times_us);
    return {.section = "resident work beside such batches",
            .op = Name(Op::kForward),
            .dtype = Name(Dtype::kBf16),
            .n = work.num_elements(),
            .note = way + ", worst " + std::to_string(static_cast<int>(worst_us)),
            .us = time.median,
            .spread = time.spread,
            .gb_s = 3.0 * CudaResidentWork::kTensorBytes / time.median / 1e3,
            .baseline = "nothing beside it",
            .ratio = alone_us / time.median};
  }

  Report& report_;
  server::CachingSlabPool pool_;
  std::array<std::unique_ptr<server::CudaLane>, kMostLanes> lanes_;
};

void Measure(Report& report) {
  report.AddFact("GB/s", "read and written; what is read is 2/3 of it forward, 1/2 backward");
  Bench bench(report);
  for (const server::Op op : {server::Op::kForward, server::Op::kBackward}) {
    bench.MeasureAlone(op);
    for (int num_lanes = 1; num_lanes <= kMostLanes; ++num_lanes) {
      bench.MeasureSustained(op, num_lanes);
    }
    bench.MeasureSegments(op);
  }
  bench.MeasureBesideResidentWork(server::Op::kForward);
}

}  // namespace
}  // namespace swiglu::bench

int main(int argc, char** argv) {
  std::string json;
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument.starts_with("--json=")) {
      json = argument.substr(7);
    } else if (argument == "--json" && i + 1 < argc) {
      json = argv[++i];
    } else {
      std::fputs("usage: lane_bench [--json FILE]\n", stderr);
      return 2;
    }
  }
  swiglu::bench::Report report;
  report.AddFact("commit", swiglu::kCommit);
  if (!swiglu::bench::AddDeviceFact(report)) return 1;
  swiglu::bench::Measure(report);
  return json.empty() || report.WriteJson(json) ? 0 : 1;
}
