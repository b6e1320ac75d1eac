// SPDX-License-Identifier: Apache-2.0
//
// Frames as RFC 9113 has them, fields as RFC 7541 has them in their simplest form, and a loop over
// poll.
#include "tests/client/http2_peer.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

namespace swiglu::client {
namespace {

constexpr absl::string_view kClientPreface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
constexpr size_t kFrameHeaderBytes = 9;
constexpr size_t kMaxFrameBytes = 16384;

enum FrameType : uint8_t {
  kData = 0,
  kHeaders = 1,
  kReset = 3,
  kSettings = 4,
  kPing = 6,
  kGoAway = 7,
  kWindowUpdate = 8,
};
// Each has its meaning for some types alone.
constexpr uint8_t kAck = 1, kEndStream = 1, kEndHeaders = 4;

// The `size` low bytes of `value`, the highest first.
std::string BigEndian(uint64_t value, int size) {
  std::string bytes;
  for (int i = size - 1; i >= 0; --i) bytes.push_back(static_cast<char>(value >> (8 * i) & 0xff));
  return bytes;
}

uint32_t FromBigEndian(absl::string_view bytes) {
  uint32_t value = 0;
  for (const char c : bytes) value = value << 8 | static_cast<uint8_t>(c);
  return value;
}

std::string Frame(FrameType type, uint8_t flags, uint32_t stream, absl::string_view payload) {
  return absl::StrCat(BigEndian(payload.size(), 3), BigEndian(type, 1), BigEndian(flags, 1),
                      BigEndian(stream, 4), payload);
}

uint8_t FlagOf(StreamEnd end) { return end == StreamEnd::kHere ? kEndStream : uint8_t{0}; }

// What a client of several servers asks of its own accord. gRPC sends the path as it is.
constexpr absl::string_view kWatchPath = "/grpc.health.v1.Health/Watch";

}  // namespace

std::string GreetingFrames() {
  constexpr uint16_t kInitialWindowSize = 4;
  constexpr uint32_t kLargestWindow = 0x7fffffff, kFirstWindow = 65535;
  return Frame(kSettings, 0, 0,
               absl::StrCat(BigEndian(kInitialWindowSize, 2), BigEndian(kLargestWindow, 4))) +
         Frame(kWindowUpdate, 0, 0, BigEndian(kLargestWindow - kFirstWindow, 4));
}

std::string HeadersFrame(uint32_t stream, const HeaderList& headers, StreamEnd end) {
  std::string block;
  for (const auto& [name, value] : headers) {
    // A literal without indexing, with its name: the lengths take one byte each.
    absl::StrAppend(&block, BigEndian(0, 1), BigEndian(name.size(), 1), name,
                    BigEndian(value.size(), 1), value);
  }
  return Frame(kHeaders, kEndHeaders | FlagOf(end), stream, block);
}

std::string DataFrames(uint32_t stream, absl::string_view bytes, StreamEnd end) {
  std::string frames;
  do {
    const absl::string_view part = bytes.substr(0, kMaxFrameBytes);
    bytes.remove_prefix(part.size());
    frames += Frame(kData, bytes.empty() ? FlagOf(end) : uint8_t{0}, stream, part);
  } while (!bytes.empty());
  return frames;
}

std::string ResetFrame(uint32_t stream, Http2Error error) {
  return Frame(kReset, 0, stream, BigEndian(static_cast<uint32_t>(error), 4));
}

std::string GoAwayFrame(uint32_t last_stream, Http2Error error) {
  return Frame(kGoAway, 0, 0,
               BigEndian(last_stream, 4) + BigEndian(static_cast<uint32_t>(error), 4));
}

std::string MessagePrefix(size_t size) { return BigEndian(size, 5); }

std::string AnswerHeaders(uint32_t stream) {
  return HeadersFrame(stream, {{":status", "200"}, {"content-type", "application/grpc"}});
}

std::string Trailers(uint32_t stream, const std::string& grpc_status) {
  return HeadersFrame(stream, {{"grpc-status", grpc_status}}, StreamEnd::kHere);
}

std::string AnswerFrames(uint32_t stream, absl::string_view message) {
  return AnswerHeaders(stream) +
         DataFrames(stream, absl::StrCat(MessagePrefix(message.size()), message)) +
         Trailers(stream, "0");
}

Http2Peer::Http2Peer(std::vector<PeerConnection> script)
    : script_(std::move(script)),
      listening_fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)),
      end_fd_(eventfd(0, EFD_CLOEXEC)) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  EXPECT_EQ(bind(listening_fd_, reinterpret_cast<sockaddr*>(&address), size), 0);
  EXPECT_EQ(getsockname(listening_fd_, reinterpret_cast<sockaddr*>(&address), &size), 0);
  EXPECT_EQ(listen(listening_fd_, 16), 0);
  address_ = absl::StrCat("127.0.0.1:", ntohs(address.sin_port));
  thread_ = std::thread([this] { Serve(); });
}

Http2Peer::~Http2Peer() {
  EXPECT_EQ(eventfd_write(end_fd_, 1), 0);
  thread_.join();
  for (const Connection& connection : connections_) close(connection.fd);
  if (listening_fd_ >= 0) close(listening_fd_);
  close(end_fd_);
}

void Http2Peer::Serve() {
  while (true) {
    // poll ignores a negative descriptor.
    std::vector<pollfd> waits = {{end_fd_, POLLIN, 0}, {listening_fd_, POLLIN, 0}};
    for (const Connection& connection : connections_) waits.push_back({connection.fd, POLLIN, 0});
    if (poll(waits.data(), waits.size(), /*timeout=*/-1) < 0) continue;
    if (waits[0].revents != 0) return;
    for (size_t i = connections_.size(); i-- > 0;) {
      if (waits[i + 2].revents == 0 || Receive(connections_[i])) continue;
      close(connections_[i].fd);
      connections_.erase(connections_.begin() + static_cast<ptrdiff_t>(i));
    }
    if (waits[1].revents != 0) Accept();
  }
}

void Http2Peer::Accept() {
  const int fd = accept4(listening_fd_, nullptr, nullptr, SOCK_CLOEXEC);
  if (fd < 0) return;
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  const auto number = static_cast<size_t>(num_connections_++);
  const PeerConnection& script = script_[std::min(number, script_.size() - 1)];
  if (script.is_last) {
    close(listening_fd_);
    listening_fd_ = -1;
  }
  Connection connection{.fd = fd, .script = &script, .unread = "", .streams = {}};
  if (Send(connection, script.greeting, script.after_greeting)) {
    connections_.push_back(std::move(connection));
  } else {
    close(fd);
  }
}

bool Http2Peer::Receive(Connection& connection) {
  char bytes[1 << 16];
  const ssize_t size = recv(connection.fd, bytes, sizeof(bytes), 0);
  if (size <= 0) return false;
  std::string& unread = connection.unread;
  unread.append(bytes, static_cast<size_t>(size));
  size_t read = 0;
  if (!connection.has_greeted) {
    if (unread.size() < kClientPreface.size()) return true;
    connection.has_greeted = true;
    read = kClientPreface.size();
  }
  while (unread.size() - read >= kFrameHeaderBytes) {
    const absl::string_view rest = absl::string_view(unread).substr(read);
    const size_t frame_bytes = kFrameHeaderBytes + FromBigEndian(rest.substr(0, 3));
    if (rest.size() < frame_bytes) break;
    if (!HandleFrame(connection, rest.substr(0, frame_bytes))) return false;
    read += frame_bytes;
  }
  unread.erase(0, read);
  return true;
}

// The answer of a server that does not know the method.
static std::string UnimplementedFrame(uint32_t stream) {
  return HeadersFrame(
      stream, {{":status", "200"}, {"content-type", "application/grpc"}, {"grpc-status", "12"}},
      StreamEnd::kHere);
}

bool Http2Peer::HandleFrame(Connection& connection, absl::string_view frame) {
  const auto type = static_cast<uint8_t>(frame[3]), flags = static_cast<uint8_t>(frame[4]);
  const uint32_t number = FromBigEndian(frame.substr(5, 4));
  const absl::string_view payload = frame.substr(kFrameHeaderBytes);
  if (type == kSettings && (flags & kAck) == 0) {
    return Send(connection, Frame(kSettings, kAck, 0, ""), Then::kStayOpen);
  }
  if (type == kPing && (flags & kAck) == 0) {
    return Send(connection, Frame(kPing, kAck, 0, payload), Then::kStayOpen);
  }
  if (type != kHeaders && type != kData) return true;
  if (type == kHeaders && payload.find(kWatchPath) != absl::string_view::npos) {
    return Send(connection, UnimplementedFrame(number), Then::kStayOpen);
  }
  if (type == kData && connection.streams.count(number) == 0) return true;
  Stream& stream = connection.streams[number];
  if (type == kHeaders) {
    ++num_requests_;
    const std::vector<Turn>& turns = connection.script->turns;
    stream.request.stream = number;
    if (!turns.empty()) {
      stream.turn = &turns[std::min(connection.num_requests, turns.size() - 1)];
    }
    ++connection.num_requests;
  } else {
    stream.request.data.append(payload.data(), payload.size());
    // The window of the stream is as large as the largest message.
    if (!payload.empty() &&
        !Send(connection, Frame(kWindowUpdate, 0, 0, BigEndian(payload.size(), 4)),
              Then::kStayOpen)) {
      return false;
    }
  }
  if ((flags & kEndStream) != 0) stream.request.is_whole = true;
  return TakeTurn(connection, stream);
}

bool Http2Peer::TakeTurn(Connection& connection, Stream& stream) {
  const Turn* const turn = stream.turn;
  const bool is_due = turn != nullptr &&
                      (stream.request.is_whole || stream.request.data.size() >= turn->after_bytes);
  if (!is_due) return true;
  stream.turn = nullptr;
  return Send(connection, turn->reply ? turn->reply(stream.request) : "", turn->then);
}

bool Http2Peer::Send(const Connection& connection, absl::string_view bytes, Then then) {
  while (!bytes.empty()) {
    const ssize_t size = send(connection.fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    // After a half-close there is nothing to send any more, but still something to read.
    if (size < 0) return errno == EPIPE;
    bytes.remove_prefix(static_cast<size_t>(size));
  }
  if (then == Then::kHalfClose) shutdown(connection.fd, SHUT_WR);
  return then != Then::kClose;
}

}  // namespace swiglu::client
