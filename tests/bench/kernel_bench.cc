// SPDX-License-Identifier: Apache-2.0
//
// kernel_bench: times the kernels, each point beside a baseline of the same run, and prints tables.
// It judges nothing: correctness is the tests' business.
#include <cstdio>
#include <string>
#include <string_view>
#include <thread>

#include "tests/bench/cpu_points.h"
#include "tests/bench/report.h"
#include "version/version.h"
#ifdef SWIGLU_CUDA
#include "tests/bench/cuda_points.h"
#endif

namespace {

constexpr char kUsage[] =
    "usage: kernel_bench [--device=cuda|cpu|all] [--section=TEXT] [--threads=N] [--json=FILE]\n"
    "  --section   only the sections whose names contain TEXT: sweep, alignment, host, segments,\n"
    "              mapped; mlp, GPU; cpu, all threads; cpu, one core; mlp\n"
    "  --threads   threads for the CPU; all of the machine's unless told\n"
    "  --json      writes the rows to FILE as well\n";

struct Arguments {
  std::string device = "all", section, json;
  int threads = 0;
};

bool Parse(int argc, char** argv, Arguments& arguments) {
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    const auto value = [&](std::string_view name, std::string& out) {
      if (!argument.starts_with(name)) return false;
      out = argument.substr(name.size());
      return true;
    };
    std::string threads;
    if (value("--threads=", threads)) {
      arguments.threads = std::atoi(threads.c_str());
      if (arguments.threads < 1) return false;
    } else if (!value("--device=", arguments.device) && !value("--section=", arguments.section) &&
               !value("--json=", arguments.json)) {
      return false;
    }
  }
  return arguments.device == "all" || arguments.device == "cuda" || arguments.device == "cpu";
}

}  // namespace

int main(int argc, char** argv) {
  Arguments arguments;
  if (!Parse(argc, argv, arguments)) {
    std::fputs(kUsage, stderr);
    return 2;
  }
  swiglu::bench::Report report;
  report.AddFact("commit", swiglu::kCommit);
  bool ok = true;
  if (arguments.device != "cpu") {
#ifdef SWIGLU_CUDA
    ok = swiglu::bench::MeasureCuda(arguments.section, report) || arguments.device == "all";
#else
    std::fputs("kernel_bench: this build has no CUDA\n", stderr);
    ok = arguments.device == "all";
#endif
  }
  if (arguments.device != "cuda") {
    const int num_cores = static_cast<int>(std::thread::hardware_concurrency());
    swiglu::bench::MeasureCpu(arguments.section,
                              arguments.threads > 0 ? arguments.threads : num_cores, report);
  }
  if (!arguments.json.empty()) ok &= report.WriteJson(arguments.json);
  return ok ? 0 : 1;
}
