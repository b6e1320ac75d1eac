// SPDX-License-Identifier: Apache-2.0
//
// The loop that accepts. See the header.
#include "server/connections/acceptor.h"

#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "server/base/address.h"
#include "server/log/log.h"

namespace swiglu::server {
namespace {

// Connections accepted from one socket before the others have their turn.
constexpr int kAcceptsInARow = 64;

// How long to wait for a descriptor to become free before the next try.
constexpr int kStarvedWaitMs = 50;

// The least time between two counts of the open connections.
constexpr absl::Duration kCountInterval = absl::Milliseconds(20);

constexpr std::chrono::seconds kRefusalLogInterval{1};

absl::StatusOr<ListenSockets> ListenOn(const AcceptorOptions& options) {
  const std::string path = UnixSocketPath(options.address);
  if (!path.empty()) return ListenUnix(path, options.unix_socket_mode);
  absl::StatusOr<ListenSockets> listening = absl::InvalidArgumentError("");
  if (options.address != "unix:") listening = ListenTcp(options.address);
  if (!absl::IsInvalidArgument(listening.status())) return listening;
  return absl::InvalidArgumentError(
      absl::StrCat("'", options.address, "' is not an address: HOST:PORT or unix:/path is needed"));
}

// What accepted connections inherit.
void SetUpTcp(int listener, absl::Duration acknowledge_timeout) {
  const int on = 1;
  ::setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  const int timeout_ms = static_cast<int>(absl::ToInt64Milliseconds(acknowledge_timeout));
  ::setsockopt(listener, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout_ms, sizeof(timeout_ms));
}

// Whether accept() failed because this process or the machine has no more of something.
bool IsStarved(int error) {
  return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Acceptor>> Acceptor::Listen(AcceptorOptions options) {
  CHECK(options.max_connections >= 1);
  absl::StatusOr<ListenSockets> listening = ListenOn(options);
  if (!listening.ok()) return listening.status();
  auto acceptor =
      std::unique_ptr<Acceptor>(new Acceptor(std::move(options), *std::move(listening)));
  acceptor->stopping_ = Descriptor(::eventfd(0, EFD_CLOEXEC));
  if (acceptor->stopping_.get() < 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("cannot listen on ", acceptor->address_, ": ", std::strerror(errno)));
  }
  return acceptor;
}

Acceptor::Acceptor(AcceptorOptions options, ListenSockets listening)
    : options_(std::move(options)), listening_(std::move(listening)), address_(options_.address) {
  if (!UnixSocketPath(address_).empty()) return;
  address_ = WithPort(address_, listening_.port);
  for (const Descriptor& listener : listening_.sockets) {
    SetUpTcp(listener.get(), options_.acknowledge_timeout);
  }
}

Acceptor::~Acceptor() { Stop(); }

void Acceptor::Start(Callbacks callbacks) {
  callbacks_ = std::move(callbacks);
  thread_ = std::thread([this] { Run(); });
}

void Acceptor::Stop() {
  if (listening_.sockets.empty()) return;
  if (thread_.joinable()) {
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = ::write(stopping_.get(), &one, sizeof(one));
    thread_.join();
  }
  // Nobody may find the file of a socket that nobody listens on.
  const std::string path = UnixSocketPath(address_);
  if (!path.empty()) ::unlink(path.c_str());
  listening_.sockets.clear();
}

void Acceptor::Run() {
  std::vector<pollfd> polled = {{stopping_.get(), POLLIN, 0}};
  for (const Descriptor& listener : listening_.sockets) {
    polled.push_back({listener.get(), POLLIN, 0});
  }
  bool accepting = true;
  while (true) {
    // While nothing can be accepted, what waits is no news.
    const bool looks = accepting || polled.size() == 1;
    ::poll(polled.data(), looks ? polled.size() : 1, looks ? -1 : kStarvedWaitMs);
    if ((polled[0].revents & POLLIN) != 0) return;
    // Others may have ended since a count that left no room. So what comes after it waits for the
    // next count.
    if (const int wait_ms = WaitForCountMs(); wait_ms > 0) {
      ::poll(polled.data(), 1, wait_ms);
      if ((polled[0].revents & POLLIN) != 0) return;
    }
    bool suffices = true;
    for (size_t i = 1; i < polled.size(); ++i) suffices &= AcceptFrom(polled[i].fd);
    if (suffices != accepting) {
      accepting = suffices;
      callbacks_.accepting_changed(accepting);
    }
  }
}

bool Acceptor::AcceptFrom(int listener) {
  for (int i = 0; i < kAcceptsInARow; ++i) {
    Descriptor accepted(::accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (accepted.get() >= 0) {
      if (HasRoom()) callbacks_.take(accepted.Release());
      continue;
    }
    if (errno == EAGAIN || errno == EWOULDBLOCK) return true;
    if (IsStarved(errno)) {
      LOG_EVERY(ERROR, kRefusalLogInterval, "cannot accept connections: {}", std::strerror(errno));
      return false;
    }
    // A connection that ended before it was accepted, or one that a firewall forbids: the next.
  }
  return true;
}

int Acceptor::WaitForCountMs() const {
  if (most_open_ < options_.max_connections) return 0;
  const absl::Duration left = counted_at_ + kCountInterval - absl::Now();
  if (left <= absl::ZeroDuration()) return 0;
  // Not longer, even if the clock was set back.
  const absl::Duration wait = std::min(left, kCountInterval);
  return static_cast<int>(absl::ToInt64Milliseconds(absl::Ceil(wait, absl::Milliseconds(1))));
}

bool Acceptor::HasRoom() {
  if (most_open_ >= options_.max_connections && absl::Now() - counted_at_ >= kCountInterval) {
    most_open_ = callbacks_.num_open();
    counted_at_ = absl::Now();
  }
  if (most_open_ < options_.max_connections) {
    ++most_open_;
    return true;
  }
  callbacks_.refused();
  LOG_EVERY(WARNING, kRefusalLogInterval,
            "connection refused: {} are open, the limit of --max_connections",
            options_.max_connections);
  return false;
}

}  // namespace swiglu::server
