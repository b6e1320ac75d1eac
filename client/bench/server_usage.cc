// SPDX-License-Identifier: Apache-2.0
//
// The CPU clock of a process, proc(5), and two lines of a page.
#include "client/bench/server_usage.h"

#include <time.h>

#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"
#include "client/bench/http_page.h"

namespace swiglu::bench {
namespace {

constexpr absl::Duration kPageTimeout = absl::Seconds(5);

std::string ReadFile(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

// Finds a line that begins with `name`, white space and a number. False if there is none.
bool FindNumber(absl::string_view text, absl::string_view name, double* number) {
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    if (!absl::ConsumePrefix(&line, name)) continue;
    const std::vector<absl::string_view> words =
        absl::StrSplit(line, absl::ByAnyChar(" \t\r"), absl::SkipEmpty());
    if (!words.empty() && absl::SimpleAtod(words.front(), number)) return true;
  }
  return false;
}

}  // namespace

absl::StatusOr<ServerUsage> ReadProcessUsage(pid_t pid) {
  clockid_t clock = 0;
  timespec cpu_time = {};
  if (::clock_getcpuclockid(pid, &clock) != 0 || ::clock_gettime(clock, &cpu_time) != 0) {
    return absl::NotFoundError(absl::StrCat("no process ", pid));
  }
  double resident_kb = 0, high_water_kb = 0;
  const std::string status = ReadFile(absl::StrCat("/proc/", pid, "/status"));
  if (!FindNumber(status, "VmRSS:", &resident_kb) ||
      !FindNumber(status, "VmHWM:", &high_water_kb)) {
    return absl::NotFoundError(absl::StrCat("process ", pid, " has ended"));
  }
  return ServerUsage{absl::ToDoubleSeconds(absl::DurationFromTimespec(cpu_time)),
                     static_cast<int64_t>(resident_kb) * 1024,
                     static_cast<int64_t>(high_water_kb) * 1024};
}

absl::StatusOr<ServerUsage> ReadPageUsage(const std::string& address) {
  const absl::StatusOr<std::string> answer = ReadHttpPage(address, "/metrics", kPageTimeout);
  if (!answer.ok()) return answer.status();
  return ParsePageUsage(*answer);
}

absl::StatusOr<ServerUsage> ParsePageUsage(absl::string_view page) {
  double cpu_seconds = 0, resident_bytes = 0;
  if (!FindNumber(page, "process_cpu_seconds_total ", &cpu_seconds) ||
      !FindNumber(page, "process_resident_memory_bytes ", &resident_bytes)) {
    return absl::InvalidArgumentError(
        "the metrics page lacks process_cpu_seconds_total or process_resident_memory_bytes");
  }
  return ServerUsage{cpu_seconds, static_cast<int64_t>(resident_bytes), 0};
}

}  // namespace swiglu::bench
