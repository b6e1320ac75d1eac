// SPDX-License-Identifier: Apache-2.0
//
// The CPU clock of a process, proc(5), and as much of HTTP as one page needs.
#include "client/bench/server_usage.h"

#include <netdb.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include <fstream>
#include <memory>
#include <sstream>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"

namespace swiglu::bench {
namespace {

constexpr int kPageTimeoutSeconds = 5;

// A socket that is closed on destruction; -1: none.
class Socket {
 public:
  explicit Socket(int fd) : fd_(fd) {}
  ~Socket() {
    if (fd_ >= 0) ::close(fd_);
  }
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;
  int get() const { return fd_; }

 private:
  const int fd_;
};

std::string ReadFile(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

// The number after `name` and white space on a line of its own. False if there is none.
bool FindNumber(absl::string_view text, absl::string_view name, double* number) {
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    if (!absl::ConsumePrefix(&line, name)) continue;
    const std::vector<absl::string_view> words =
        absl::StrSplit(line, absl::ByAnyChar(" \t\r"), absl::SkipEmpty());
    if (!words.empty() && absl::SimpleAtod(words.front(), number)) return true;
  }
  return false;
}

// Sends `request` to HOST:PORT and reads until the other side closes.
absl::StatusOr<std::string> Exchange(const std::string& address, const std::string& request) {
  const auto failed = [&address](absl::string_view what) {
    return absl::UnavailableError(absl::StrCat("no metrics page at ", address, ": ", what));
  };
  const size_t colon = address.rfind(':');
  if (colon == std::string::npos) return failed("it takes HOST:PORT");
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int error = ::getaddrinfo(address.substr(0, colon).c_str(),
                                  address.substr(colon + 1).c_str(), &hints, &found);
  if (error != 0) return failed(::gai_strerror(error));
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> owner(found, &::freeaddrinfo);
  const Socket socket(::socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const timeval timeout = {.tv_sec = kPageTimeoutSeconds, .tv_usec = 0};
  ::setsockopt(socket.get(), SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
  ::setsockopt(socket.get(), SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
  if (::connect(socket.get(), found->ai_addr, found->ai_addrlen) != 0) {
    return failed("no connection");
  }
  if (::send(socket.get(), request.data(), request.size(), MSG_NOSIGNAL) < 0) {
    return failed("it takes no request");
  }
  std::string answer;
  char block[16384];
  ssize_t size = 0;
  while ((size = ::recv(socket.get(), block, sizeof(block), 0)) > 0) answer.append(block, size);
  if (size < 0) return failed("no answer");
  return answer;
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
  const absl::StatusOr<std::string> answer = Exchange(
      address,
      absl::StrCat("GET /metrics HTTP/1.1\r\nHost: ", address, "\r\nConnection: close\r\n\r\n"));
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
