// SPDX-License-Identifier: Apache-2.0
//
// The series of this process. Reads the figures from the places that proc(5) and getrlimit(2) name.
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string>
#include <system_error>
#include <vector>

#include "server/metrics/family.h"
#include "server/metrics/names.h"

namespace swiglu::server {
namespace {

double CpuSeconds() {
  timespec time{};
  if (clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time) != 0) return 0;
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

double OpenFds() {
  std::error_code error;
  const std::filesystem::directory_iterator fds("/proc/self/fd", error);
  if (error) return 0;
  // One of the descriptors is that of the directory itself.
  return static_cast<double>(std::distance(begin(fds), end(fds)) - 1);
}

double MaxFds() {
  rlimit limit{};
  return getrlimit(RLIMIT_NOFILE, &limit) == 0 ? static_cast<double>(limit.rlim_cur) : 0;
}

// The time at which the system booted, plus the time from then to the start of the process.
double StartTimeSeconds() {
  double boot_seconds = 0;
  std::ifstream system("/proc/stat");
  for (std::string word; system >> word;) {
    if (word == "btime" && system >> boot_seconds) break;
  }
  std::ifstream process("/proc/self/stat");
  std::string text(std::istreambuf_iterator<char>(process), {});
  // The second field is the program's name in parentheses, and may contain any character. The 22nd
  // field is the start in clock ticks.
  const size_t name_end = text.rfind(')');
  if (name_end == std::string::npos) return 0;
  std::istringstream fields(text.substr(name_end + 1));
  std::string skipped;
  for (int i = 3; i < 22; ++i) fields >> skipped;
  double start_ticks = 0;
  fields >> start_ticks;
  return boot_seconds + start_ticks / static_cast<double>(sysconf(_SC_CLK_TCK));
}

}  // namespace

std::vector<prometheus::MetricFamily> MakeProcessFamilies() {
  static const double start_time_seconds = StartTimeSeconds();
  const double page_bytes = static_cast<double>(sysconf(_SC_PAGESIZE));
  double virtual_pages = 0;
  double resident_pages = 0;
  std::ifstream("/proc/self/statm") >> virtual_pages >> resident_pages;
  return {MakeSingle(metrics::kProcessCpu, CpuSeconds()),
          MakeSingle(metrics::kProcessResident, resident_pages * page_bytes),
          MakeSingle(metrics::kProcessVirtual, virtual_pages * page_bytes),
          MakeSingle(metrics::kProcessOpenFds, OpenFds()),
          MakeSingle(metrics::kProcessMaxFds, MaxFds()),
          MakeSingle(metrics::kProcessStartTime, start_time_seconds)};
}

}  // namespace swiglu::server
