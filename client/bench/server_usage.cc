// SPDX-License-Identifier: Apache-2.0
//
// The CPU clock of a process, proc(5), and two lines of a page. As much of HTTP as the page needs:
// sockets that never block, and one deadline for all that is waited for.
#include "client/bench/server_usage.h"

#include <poll.h>
#include <sys/socket.h>
#include <time.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <memory>
#include <optional>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "absl/types/optional.h"
#include "server/base/address.h"

namespace swiglu::bench {
namespace {

using server::Descriptor;

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

constexpr size_t kMaxPageBytes = size_t{64} << 20;

// Waits until the socket can be read from or written to. False when the time is over.
bool WaitFor(const Descriptor& socket, short events, absl::Time deadline) {
  while (true) {
    const int64_t rest_ms = absl::ToInt64Milliseconds(deadline - absl::Now());
    if (rest_ms <= 0) return false;
    pollfd waiting = {.fd = socket.get(), .events = events, .revents = 0};
    const int num_ready = ::poll(&waiting, 1, static_cast<int>(rest_ms));
    if (num_ready > 0) return true;
    if (num_ready < 0 && errno != EINTR) return false;
  }
}

// Gives 0 or an errno value.
int Connect(const Descriptor& socket, const addrinfo& address, absl::Time deadline) {
  if (socket.get() < 0) return errno;
  if (::connect(socket.get(), address.ai_addr, address.ai_addrlen) == 0) return 0;
  if (errno != EINPROGRESS) return errno;
  if (!WaitFor(socket, POLLOUT, deadline)) return ETIMEDOUT;
  int error = 0;
  socklen_t size = sizeof(error);
  return ::getsockopt(socket.get(), SOL_SOCKET, SO_ERROR, &error, &size) == 0 ? error : errno;
}

// Sends `request` and reads until the other side closes. None if that fails.
absl::optional<std::string> Talk(const Descriptor& socket, absl::string_view request,
                                 absl::Time deadline) {
  while (!request.empty()) {
    if (!WaitFor(socket, POLLOUT, deadline)) return absl::nullopt;
    const ssize_t size = ::send(socket.get(), request.data(), request.size(), MSG_NOSIGNAL);
    if (size < 0) return absl::nullopt;
    request.remove_prefix(static_cast<size_t>(size));
  }
  std::string answer;
  char block[16384];
  while (answer.size() < kMaxPageBytes && WaitFor(socket, POLLIN, deadline)) {
    const ssize_t size = ::recv(socket.get(), block, sizeof(block), 0);
    if (size < 0) return absl::nullopt;
    if (size == 0) return answer;
    answer.append(block, static_cast<size_t>(size));
  }
  return absl::nullopt;
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

absl::StatusOr<Descriptor> ConnectToAny(const addrinfo* addresses, absl::Time deadline) {
  int num_left = 0;
  for (const addrinfo* one = addresses; one != nullptr; one = one->ai_next) ++num_left;
  int error = EDESTADDRREQ;
  for (const addrinfo* one = addresses; one != nullptr; one = one->ai_next, --num_left) {
    Descriptor socket(::socket(one->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    const absl::Time now = absl::Now();
    error = Connect(socket, *one, now + (deadline - now) / num_left);
    if (error == 0) return socket;
  }
  return absl::UnavailableError(absl::StrCat("no connection: ", std::strerror(error)));
}

absl::StatusOr<std::string> ReadHttpPage(const std::string& address, absl::string_view path,
                                         absl::Duration timeout) {
  const auto failed = [&](absl::string_view what) {
    return absl::UnavailableError(absl::StrCat("no page http://", address, path, ": ", what));
  };
  const std::optional<server::HostPort> split = server::ParseHostPort(address);
  if (!split) return failed("the address is not HOST:PORT");
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int error =
      ::getaddrinfo(split->host.c_str(), std::to_string(split->port).c_str(), &hints, &found);
  if (error != 0) return failed(::gai_strerror(error));
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> owner(found, &::freeaddrinfo);
  const absl::Time deadline = absl::Now() + timeout;
  const absl::StatusOr<Descriptor> socket = ConnectToAny(found, deadline);
  if (!socket.ok()) return failed(socket.status().message());
  const std::string request =
      absl::StrCat("GET ", path, " HTTP/1.1\r\nHost: ", address, "\r\nConnection: close\r\n\r\n");
  absl::optional<std::string> answer = Talk(*socket, request, deadline);
  if (!answer) {
    return failed(absl::StrCat("no whole answer within ", absl::FormatDuration(timeout)));
  }
  return *std::move(answer);
}

}  // namespace swiglu::bench
