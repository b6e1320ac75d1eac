// SPDX-License-Identifier: Apache-2.0
//
// Sockets by their peer's name.
#include "server/connections/connections.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "server/log/log.h"

namespace swiglu::server {
namespace {

// How often it is looked whether a peer has taken what it is sent.
constexpr absl::Duration kAckLookInterval = absl::Microseconds(200);

// TCP_ESTABLISHED of <netinet/tcp.h>, which does not go together with <linux/tcp.h>.
constexpr int kEstablished = 1;

// Processes that a description names.
constexpr size_t kMaxProcesses = 4;

constexpr std::chrono::milliseconds kLogInterval{50};

constexpr char kUnixPeer[] = "unix:";

std::string Ipv4Name(const in_addr& address, in_port_t port) {
  char text[INET_ADDRSTRLEN] = "";
  ::inet_ntop(AF_INET, &address, text, sizeof(text));
  return absl::StrCat("ipv4:", text, ":", ntohs(port));
}

// As gRPC writes it: the brackets are escaped, and an IPv4 address over IPv6 is an IPv4 address.
std::string Ipv6Name(const sockaddr_in6& address) {
  if (IN6_IS_ADDR_V4MAPPED(&address.sin6_addr)) {
    in_addr ipv4{};
    std::memcpy(&ipv4, address.sin6_addr.s6_addr + 12, sizeof(ipv4));
    return Ipv4Name(ipv4, address.sin6_port);
  }
  char text[INET6_ADDRSTRLEN] = "";
  ::inet_ntop(AF_INET6, &address.sin6_addr, text, sizeof(text));
  const std::string scope =
      address.sin6_scope_id == 0 ? "" : absl::StrCat("%25", address.sin6_scope_id);
  return absl::StrCat("ipv6:%5B", text, scope, "%5D:", ntohs(address.sin6_port));
}

// The name of a socket's peer, or "" if there is none any more.
std::string PeerName(int fd) {
  sockaddr_storage peer{};
  socklen_t size = sizeof(peer);
  if (::getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &size) != 0) return "";
  switch (peer.ss_family) {
    case AF_INET: {
      const auto& address = reinterpret_cast<const sockaddr_in&>(peer);
      return Ipv4Name(address.sin_addr, address.sin_port);
    }
    case AF_INET6:
      return Ipv6Name(reinterpret_cast<const sockaddr_in6&>(peer));
    default:
      return kUnixPeer;
  }
}

std::optional<tcp_info> TcpInfo(int fd) {
  tcp_info info{};
  socklen_t size = sizeof(info);
  if (::getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) != 0) return std::nullopt;
  if (size < offsetof(tcp_info, tcpi_bytes_received) + sizeof(uint64_t)) return std::nullopt;
  return info;
}

// What the peer has acknowledged since the connection began; none if that cannot be said: on a unix
// socket what was written lies with the peer.
std::optional<uint64_t> AcknowledgedBytes(int fd) {
  const std::optional<tcp_info> info = TcpInfo(fd);
  if (!info.has_value() || info->tcpi_state != kEstablished) return std::nullopt;
  return info->tcpi_bytes_acked;
}

// Waits until the peer has what it is being sent now; more may be written meanwhile.
void AwaitTaken(int fd, absl::Time deadline) {
  std::optional<uint64_t> acknowledged = AcknowledgedBytes(fd);
  int num_held_bytes = 0;
  if (::ioctl(fd, SIOCOUTQ, &num_held_bytes) != 0) return;
  const uint64_t wanted = acknowledged.value_or(0) + num_held_bytes;
  while (acknowledged.has_value() && *acknowledged < wanted && absl::Now() < deadline) {
    absl::SleepFor(kAckLookInterval);
    acknowledged = AcknowledgedBytes(fd);
  }
}

// Has the socket's end, whoever brings it about, be a reset: a peer whose window is closed would
// not hear of any other for a minute.
void EndByReset(int fd) {
  const linger at_once{.l_onoff = 1, .l_linger = 0};
  ::setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
}

// Has the kernel drop every packet for the socket that has data, or none. Acknowledgements, and a
// reset, which the peer sends only once, get through.
bool SetDropping(int fd, bool dropping) {
  if (!dropping) {
    const int unused = 0;
    return ::setsockopt(fd, SOL_SOCKET, SO_DETACH_FILTER, &unused, sizeof(unused)) == 0;
  }
  constexpr uint32_t kDataOffset = 12;  // in the header of TCP: its length, in the upper four bits
  constexpr uint32_t kAll = 0xFFFFFFFF;
  sock_filter drop_data[] = {
      BPF_STMT(BPF_LD | BPF_B | BPF_ABS, kDataOffset),
      BPF_STMT(BPF_ALU | BPF_RSH | BPF_K, 2),
      BPF_STMT(BPF_ALU | BPF_AND | BPF_K, 0x3C),
      BPF_STMT(BPF_MISC | BPF_TAX, 0),
      BPF_STMT(BPF_LD | BPF_W | BPF_LEN, 0),
      BPF_STMT(BPF_ALU | BPF_SUB | BPF_X, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0, 0, 1),  // whether nothing follows the header
      BPF_STMT(BPF_RET | BPF_K, kAll),
      BPF_STMT(BPF_RET | BPF_K, 0),
  };
  const sock_fprog program{.len = std::size(drop_data), .filter = drop_data};
  return ::setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)) == 0;
}

// Throws away what has come and was not read.
void DropReceived(int fd) {
  constexpr size_t kAnyBytes = size_t{1} << 30;
  while (::recv(fd, nullptr, kAnyBytes, MSG_TRUNC | MSG_DONTWAIT) > 0) {
  }
}

const char* SentenceOf(EndReason reason) {
  switch (reason) {
    case EndReason::kResets:
      return "it has begun and reset too many calls";
    case EndReason::kFrames:
      return "it has sent too many bytes that belong to no message";
  }
  return "";
}

ino_t InodeOf(int fd) {
  struct stat info {};
  return ::fstat(fd, &info) == 0 && S_ISSOCK(info.st_mode) ? info.st_ino : 0;
}

// What gRPC appends to a unix peer's name is the path that the peer is bound to, if it is.
absl::string_view KeyOf(absl::string_view peer) {
  return absl::StartsWith(peer, kUnixPeer) ? kUnixPeer : peer;
}

}  // namespace

// gRPC gives addresses as URIs: what is no letter of a URI's path is escaped, the brackets of IPv6
// among them.
std::string ReadablePeer(absl::string_view peer) {
  std::string name;
  while (!peer.empty()) {
    const bool is_escape = peer[0] == '%' && peer.size() >= 3 && absl::ascii_isxdigit(peer[1]) &&
                           absl::ascii_isxdigit(peer[2]);
    name += is_escape ? absl::HexStringToBytes(peer.substr(1, 2)) : std::string(1, peer[0]);
    peer.remove_prefix(is_escape ? 3 : 1);
  }
  return name;
}

bool Connections::IsOpen(const Connection& connection) {
  return InodeOf(connection.fd) == connection.inode;
}

Descriptor Connections::Duplicate(const Connection& connection) {
  Descriptor own(::fcntl(connection.fd, F_DUPFD_CLOEXEC, 0));
  if (own.get() < 0 || InodeOf(own.get()) != connection.inode) return Descriptor();
  return own;
}

void Connections::Add(int fd) {
  std::string peer = PeerName(fd);
  Connection connection;
  connection.fd = fd;
  connection.inode = InodeOf(fd);
  if (peer == kUnixPeer) {
    ucred credentials{};
    socklen_t size = sizeof(credentials);
    if (::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &size) == 0) {
      connection.pid = credentials.pid;
      connection.uid = credentials.uid;
    }
  }
  absl::MutexLock lock(&mutex_);
  if (connections_.size() >= sweep_at_) {
    Sweep();
    sweep_at_ = std::max<size_t>(64, 2 * connections_.size());
  }
  connections_.emplace(std::move(peer), connection);
}

int64_t Connections::NumOpen() {
  absl::MutexLock lock(&mutex_);
  Sweep();
  return static_cast<int64_t>(connections_.size());
}

std::optional<uint64_t> Connections::ReceivedBytes(absl::string_view peer) const {
  for (const Connection& connection : Find(peer)) {
    if (const auto bytes = ReceivedBytes(connection)) return bytes;
  }
  return std::nullopt;
}

std::optional<uint64_t> Connections::ReceivedBytes(const Connection& connection) {
  const std::optional<tcp_info> info = TcpInfo(connection.fd);
  // Still the same socket: then it was the same in between.
  if (info.has_value() && IsOpen(connection)) return info->tcpi_bytes_received;
  return std::nullopt;
}

std::vector<Connections::Taken> Connections::TakenFromAll() const {
  std::vector<std::pair<std::string, Connection>> known;
  {
    absl::MutexLock lock(&mutex_);
    known.assign(connections_.begin(), connections_.end());
  }
  std::vector<Taken> all;
  for (auto& [peer, connection] : known) {
    if (peer == kUnixPeer) continue;
    // Asked for first, so that it is not more than what has come.
    int num_unread_bytes = 0;
    ::ioctl(connection.fd, SIOCINQ, &num_unread_bytes);
    if (const auto bytes = ReceivedBytes(connection)) {
      all.push_back({std::move(peer), connection.inode, *bytes - num_unread_bytes});
    }
  }
  return all;
}

std::string Connections::Describe(absl::string_view peer) const {
  if (KeyOf(peer) != kUnixPeer) return ReadablePeer(peer);
  std::vector<std::string> processes;
  for (const Connection& connection : Find(peer)) {
    processes.push_back(absl::StrCat("pid=", connection.pid, ",uid=", connection.uid));
  }
  std::sort(processes.begin(), processes.end());
  processes.erase(std::unique(processes.begin(), processes.end()), processes.end());
  if (processes.size() > kMaxProcesses) {
    processes.resize(kMaxProcesses);
    processes.push_back("...");
  }
  return absl::StrCat(kUnixPeer, absl::StrJoin(processes, "+"));
}

std::vector<pid_t> Connections::UnixProcesses() const {
  std::vector<pid_t> processes;
  for (const Connection& connection : Find(kUnixPeer)) processes.push_back(connection.pid);
  std::sort(processes.begin(), processes.end());
  processes.erase(std::unique(processes.begin(), processes.end()), processes.end());
  return processes;
}

bool Connections::SetPaused(absl::string_view peer, bool paused) {
  bool is_done = false;
  for (const Connection& connection : Find(peer)) {
    const Descriptor socket = Duplicate(connection);
    is_done |= socket.get() >= 0 && SetDropping(socket.get(), paused);
  }
  return is_done;
}

int Connections::End(absl::string_view peer, EndReason reason) {
  const std::string described = log_peers_ ? Describe(peer) : "a peer";
  int num_ended = 0;
  for (const Connection& connection : Find(peer)) {
    const Descriptor own = Duplicate(connection);
    if (own.get() < 0) continue;
    EndByReset(own.get());
    if (::shutdown(own.get(), SHUT_RDWR) == 0 && MarkEnded(peer, connection)) ++num_ended;
    DropReceived(own.get());
  }
  if (num_ended == 0) return 0;
  num_ended_[static_cast<size_t>(reason)].fetch_add(num_ended, std::memory_order_relaxed);
  LOG_EVERY(WARNING, kLogInterval, "connection of {} ended: {}", described, SentenceOf(reason));
  return num_ended;
}

bool Connections::MarkEnded(absl::string_view peer, const Connection& connection) {
  absl::MutexLock lock(&mutex_);
  const auto [begin, end] = connections_.equal_range(std::string(KeyOf(peer)));
  for (auto it = begin; it != end; ++it) {
    if (it->second.inode == connection.inode) return !std::exchange(it->second.is_ended, true);
  }
  return false;
}

void Connections::Close(absl::Time deadline) {
  for (const Connection& connection : All()) {
    const Descriptor socket = Duplicate(connection);
    if (socket.get() < 0) continue;
    AwaitTaken(socket.get(), deadline);
    ::shutdown(socket.get(), SHUT_WR);
  }
}

void Connections::EndAll() {
  for (const Connection& connection : All()) {
    const Descriptor socket = Duplicate(connection);
    if (socket.get() >= 0) ::shutdown(socket.get(), SHUT_RDWR);
  }
}

std::vector<Connections::Connection> Connections::All() const {
  std::vector<Connection> all;
  absl::MutexLock lock(&mutex_);
  for (const auto& [peer, connection] : connections_) all.push_back(connection);
  return all;
}

std::vector<Connections::Connection> Connections::Find(absl::string_view peer) const {
  std::vector<Connection> found;
  absl::MutexLock lock(&mutex_);
  const auto [begin, end] = connections_.equal_range(std::string(KeyOf(peer)));
  for (auto it = begin; it != end; ++it) {
    if (IsOpen(it->second)) found.push_back(it->second);
  }
  return found;
}

void Connections::Sweep() {
  for (auto it = connections_.begin(); it != connections_.end();) {
    it = IsOpen(it->second) ? std::next(it) : connections_.erase(it);
  }
}

}  // namespace swiglu::server
