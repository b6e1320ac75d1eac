// SPDX-License-Identifier: Apache-2.0
//
// A server that speaks HTTP/2 by hand over TCP sockets, without gRPC. A test scripts what each of
// its connections does, right or wrong, down to the bytes. fake_server.h has a server whose faults
// are those of its answers alone.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"

namespace swiglu::client {

// ---- Frames ----

using HeaderList = std::vector<std::pair<std::string, std::string>>;

enum class StreamEnd { kNotYet, kHere };

// Error codes of HTTP/2.
enum class Http2Error : uint32_t {
  kNone = 0,
  kInternal = 2,
  kRefusedStream = 7,
  kCancel = 8,
  kEnhanceYourCalm = 11,
};

// The frame with the server's settings and the one that opens the window of the connection, so that
// the client may send any amount.
std::string GreetingFrames();
// REQUIRES: names and values are shorter than 127 bytes, and together shorter than 16 KiB.
std::string HeadersFrame(uint32_t stream, const HeaderList& headers,
                         StreamEnd end = StreamEnd::kNotYet);
// As many frames as `bytes` need.
std::string DataFrames(uint32_t stream, absl::string_view bytes,
                       StreamEnd end = StreamEnd::kNotYet);
std::string ResetFrame(uint32_t stream, Http2Error error);
std::string GoAwayFrame(uint32_t last_stream, Http2Error error);

// ---- What gRPC puts into them ----

// The five bytes before a message of so many bytes.
std::string MessagePrefix(size_t size);
// The headers with which every answer of a gRPC server begins.
std::string AnswerHeaders(uint32_t stream);
// The end of an answer.
std::string Trailers(uint32_t stream, const std::string& grpc_status);
// An answer with that message and status 0.
std::string AnswerFrames(uint32_t stream, absl::string_view message);

// ---- Scripts ----

// A request, as far as it has arrived.
struct PeerRequest {
  uint32_t stream = 0;
  std::string data;       // of its DATA frames, so the message has its prefix before it
  bool is_whole = false;  // whether the client has ended it

  // REQUIRES: the prefix has arrived.
  absl::string_view message() const { return absl::string_view(data).substr(5); }
};

// What happens to a connection when the peer has sent something.
enum class Then {
  kStayOpen,
  kHalfClose,  // the peer sends no more, and reads until the client closes
  kClose,      // the peer neither sends nor reads; if something is unread, the kernel resets
};

// What the peer does with a request.
struct Turn {
  static constexpr size_t kWhole = SIZE_MAX;

  // Makes the bytes to send. They must fit into the windows of the client, which have 64 KiB at
  // least: the peer does not count them. Runs on the thread of the peer. Empty: nothing to send.
  std::function<std::string(const PeerRequest&)> reply = nullptr;
  Then then = Then::kStayOpen;
  // How many bytes of DATA arrive before the peer does this, or kWhole. 0: when the headers are
  // there.
  size_t after_bytes = kWhole;
};

// What the peer does with a connection.
struct PeerConnection {
  // For the first request of the connection, the second, and so on. The last is for all further
  // ones, too. If there is none, the peer answers nothing.
  std::vector<Turn> turns = {};
  // What the peer sends before it has read anything.
  std::string greeting = GreetingFrames();
  Then after_greeting = Then::kStayOpen;
  // Whether the peer lets clients connect after this connection. If not, they are refused.
  bool is_last = false;
};

// ---- The peer ----

// Serves from construction to destruction, on one thread. Acknowledges settings and pings. Does not
// know Health/Watch, and does not count it as a request. Thread-safe.
class Http2Peer {
 public:
  // For the first connection, the second, and so on. The last is for all further ones, too.
  // REQUIRES: there is at least one.
  explicit Http2Peer(std::vector<PeerConnection> script);
  ~Http2Peer();
  Http2Peer(const Http2Peer&) = delete;
  Http2Peer& operator=(const Http2Peer&) = delete;

  // HOST:PORT.
  const std::string& address() const { return address_; }

  // How many connections, and requests on all of them, have begun to arrive.
  int num_connections() const { return num_connections_; }
  int num_requests() const { return num_requests_; }

 private:
  struct Stream {
    PeerRequest request;
    const Turn* turn = nullptr;  // nullptr when it is over
  };
  struct Connection {
    int fd;
    const PeerConnection* script;
    std::string unread;        // what has come of the next frame
    bool has_greeted = false;  // whether the client's preface has come
    size_t num_requests = 0;
    std::map<uint32_t, Stream> streams;
  };

  void Serve();
  void Accept();
  // Both return false when the connection is to be closed.
  bool Receive(Connection& connection);
  bool HandleFrame(Connection& connection, absl::string_view frame);
  bool TakeTurn(Connection& connection, Stream& stream);
  bool Send(const Connection& connection, absl::string_view bytes, Then then);

  const std::vector<PeerConnection> script_;
  std::string address_;
  int listening_fd_;  // -1 when clients are refused
  const int end_fd_;  // an eventfd that ends the thread
  std::vector<Connection> connections_;
  std::atomic<int> num_connections_ = 0, num_requests_ = 0;
  std::thread thread_;
};

}  // namespace swiglu::client
