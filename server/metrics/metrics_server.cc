// SPDX-License-Identifier: Apache-2.0
//
// One thread serves all connections with poll(2) and non-blocking sockets.
#include "server/metrics/metrics_server.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <new>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "server/log/log.h"

namespace swiglu::server {
namespace {

using Clock = std::chrono::steady_clock;

// The pause before another attempt, after descriptors or memory have run out.
constexpr int kPauseMs = 100;

bool WouldBlock() { return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR; }

}  // namespace

// One connection. Reads the head of a request, writes the answer, then waits until the client
// closes. If this side closed first, the client could lose the part of the answer not yet read.
class MetricsServer::Connection {
 public:
  Connection(Descriptor socket, Clock::time_point deadline)
      : socket_(std::move(socket)), deadline_(deadline) {}

  int fd() const { return socket_.get(); }
  short events() const { return state_ == State::kWrite ? POLLOUT : POLLIN; }
  Clock::time_point deadline() const { return deadline_; }
  bool closed() const { return state_ == State::kClosed; }

  // Does what it can do without blocking.
  void Advance(const Page& page) {
    if (state_ == State::kRead) ReadHead(page);
    if (state_ == State::kWrite) WriteAnswer();
    if (state_ == State::kLinger) Linger();
  }

 private:
  enum class State { kRead, kWrite, kLinger, kClosed };

  void ReadHead(const Page& page) {
    char buffer[4096];
    while (state_ == State::kRead) {
      const ssize_t count = ::recv(fd(), buffer, sizeof(buffer), 0);
      if (count <= 0) {
        if (count == 0 || !WouldBlock()) state_ = State::kClosed;
        return;
      }
      received_.append(buffer, static_cast<size_t>(count));
      absl::optional<std::string> answer = AnswerHttp(received_, page);
      if (!answer.has_value()) continue;
      answer_ = *std::move(answer);
      state_ = State::kWrite;
    }
  }

  void WriteAnswer() {
    while (num_written_ < answer_.size()) {
      const ssize_t count =
          ::send(fd(), answer_.data() + num_written_, answer_.size() - num_written_, MSG_NOSIGNAL);
      if (count < 0) {
        if (!WouldBlock()) state_ = State::kClosed;
        return;
      }
      num_written_ += static_cast<size_t>(count);
    }
    ::shutdown(fd(), SHUT_WR);
    state_ = State::kLinger;
  }

  void Linger() {
    // Discards whatever else the client sends, a bounded piece at a time.
    char buffer[4096];
    const ssize_t count = ::recv(fd(), buffer, sizeof(buffer), 0);
    if (count == 0 || (count < 0 && !WouldBlock())) state_ = State::kClosed;
  }

  Descriptor socket_;
  const Clock::time_point deadline_;
  State state_ = State::kRead;
  std::string received_;
  std::string answer_;
  size_t num_written_ = 0;
};

absl::StatusOr<std::unique_ptr<MetricsServer>> MetricsServer::Create(const std::string& address,
                                                                     Page page,
                                                                     const MetricsLimits& limits) {
  CHECK(limits.max_connections > 0 && limits.connection_time.count() > 0);
  absl::StatusOr<ListenSockets> listening = ListenTcp(address);
  if (!listening.ok()) return listening.status();
  Descriptor wake(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (wake.get() < 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("cannot serve metrics on ", address, ": ", std::strerror(errno)));
  }
  return std::unique_ptr<MetricsServer>(
      new MetricsServer(*std::move(listening), std::move(wake), std::move(page), limits));
}

MetricsServer::MetricsServer(ListenSockets listening, Descriptor wake, Page page,
                             const MetricsLimits& limits)
    : page_(std::move(page)),
      limits_(limits),
      listening_(std::move(listening)),
      wake_(std::move(wake)) {
  thread_ = std::thread([this] { Serve(); });
}

MetricsServer::~MetricsServer() {
  const uint64_t one = 1;
  CHECK(::write(wake_.get(), &one, sizeof(one)) == sizeof(one));
  thread_.join();
}

void MetricsServer::Serve() {
  bool goes_on = true;
  while (goes_on) {
    try {
      goes_on = Wait();
      if (goes_on) Accept();
      if (goes_on) Advance();
    } catch (const std::bad_alloc&) {
      // The memory that these connections held may be enough for the next one.
      connections_.clear();
      LOG_EVERY(WARNING, std::chrono::minutes(1), "metrics: out of memory: connections are closed");
      ::poll(nullptr, 0, kPauseMs);
    }
  }
}

void MetricsServer::Advance() {
  for (Connection& connection : connections_) connection.Advance(page_);
  connections_.remove_if([now = Clock::now()](const Connection& connection) {
    return connection.closed() || connection.deadline() <= now;
  });
}

bool MetricsServer::Wait() {
  std::vector<pollfd> fds = {{wake_.get(), POLLIN, 0}};
  for (const Connection& connection : connections_) {
    fds.push_back({connection.fd(), connection.events(), 0});
  }
  int timeout_ms = -1;
  if (!connections_.empty()) {
    const auto left = connections_.front().deadline() - Clock::now();
    timeout_ms = static_cast<int>(
        std::max<int64_t>(0, std::chrono::ceil<std::chrono::milliseconds>(left).count()));
  }
  if (accept_paused_) {
    timeout_ms = kPauseMs;
  } else {
    for (const Descriptor& socket : listening_.sockets) {
      fds.push_back({socket.get(), POLLIN, 0});
    }
  }
  ::poll(fds.data(), fds.size(), timeout_ms);
  return (fds[0].revents & POLLIN) == 0;
}

void MetricsServer::Accept() {
  accept_paused_ = false;
  for (const Descriptor& listener : listening_.sockets) {
    Descriptor accepted(::accept4(listener.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (accepted.get() < 0) {
      if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
        accept_paused_ = true;
        LOG_EVERY(WARNING, std::chrono::minutes(1), "metrics: cannot accept a connection: {}",
                  std::strerror(errno));
      }
      continue;
    }
    if (connections_.size() == limits_.max_connections) connections_.pop_front();
    connections_.emplace_back(std::move(accepted), Clock::now() + limits_.connection_time);
  }
}

}  // namespace swiglu::server
