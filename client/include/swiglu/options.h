// SPDX-License-Identifier: Apache-2.0
//
// The options of a client and of a single call, and what a call tells about itself.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "swiglu/credentials.h"

namespace swiglu::client {

// What happened to a call. Times that the server has not told are none.
struct CallStatistics {
  int num_messages = 0;        // messages sent for it: retries, second attempts and chunks count
  int64_t bytes_sent = 0;      // of these messages
  int64_t bytes_received = 0;  // of the answers
  int64_t num_joined = 1;      // calls that shared the message, this one included
  std::string server;          // the address of the server that answered last
  // In the server: from the request's arrival to the start of its batch, and from there to the
  // batch's end. Sums over the chunks of a split operation.
  absl::optional<absl::Duration> queue_time = absl::nullopt;
  absl::optional<absl::Duration> compute_time = absl::nullopt;
};

// What `Options::on_call` is told when a call has ended.
struct CallRecord {
  absl::string_view model;
  const absl::Status& status;
  absl::Duration latency;
  const CallStatistics& statistics;
};

// How a client connects to the server, and how it sends requests.
struct Options {
  // The longest time that a call may take. It includes the time to connect and the time of all
  // chunks. 0, the default, means 30 s plus 1 s for every 100 MB of tensors, inputs and outputs
  // together. Negative values are invalid. Set a shorter time to fail sooner, or a longer one for a
  // slow network.
  absl::Duration timeout = absl::ZeroDuration();

  // How connections are protected. Default: not at all, which is the only kind so far.
  Credentials credentials = Credentials::Insecure();

  // The number of connections to each server, 1 to 64. Each carries about 1 to 3 GB/s, and opens
  // when it is first used; with several servers, all open at the first call. A message is sent over
  // the connection with the fewest request bytes under way. 0, the default, means one connection
  // for each core, at most 8. A large call goes in parts over several of them at once.
  int num_connections = 0;

  // The largest message, in bytes, in either direction: 4096 to 2^31 - 1. The default is 2^31 - 1,
  // a limit of protobuf. An operation that needs a larger message is split by elements. An
  // operation is also split if the server answers RESOURCE_EXHAUSTED to a message larger than
  // `chunk_bytes`. If you set this to the server's limit (its --max_request_bytes, or half of its
  // --memory_budget_bytes), the library does not first try a message that is too large.
  int64_t max_message_bytes = (int64_t{1} << 31) - 1;

  // The size, in bytes, of the messages of a split operation: 4096 to 2^31 - 1, default 32 MiB. A
  // value above `max_message_bytes` counts as `max_message_bytes`. One such message per connection
  // is under way at a time. Larger messages overlap less with each other, and occupy more of the
  // server's memory.
  int64_t chunk_bytes = int64_t{32} << 20;

  // How often the library sends a message at most, 1 to 100: after UNAVAILABLE, and when the server
  // pushes back, it waits and sends the message again within the call's timeout. An operation is
  // pure, so a message that has been computed twice does no harm. It waits as long as the server
  // says (`grpc-retry-pushback-ms`), or else a random part of 50 ms, 100 ms, ... 1 s; without a
  // connection, that time and a random part more. Default 4. A second attempt by `hedge_delay`, and
  // a call that is sent alone after its joined message was refused, count anew. What failed on a
  // stream (`streams`) does not count. A split operation
  // waits for a server that pushes its chunks back as often as its timeout allows.
  int max_attempts = 4;

  // How many retries each call earns, 0 to 1. A client has 10 retries at first and never more, so
  // that many clients do not multiply the load of a server that fails. An attempt that found no
  // connection takes none of them. 0: none at the same server; another server is still tried, and
  // chunks that were refused come back. Default 0.1.
  double retry_budget = 0.1;

  // The largest call, in bytes of its inputs, that is joined with others: 0 to 128 KiB; 0 turns
  // it off. If more than six of one operation and dtype are under way, further ones wait until
  // fewer than two messages for each server are on their way, and then go together in one message.
  // So a process with many small calls pays for one gRPC call for dozens. A call that is alone
  // leaves at once. The results are the same, bit by bit. Default 64 KiB.
  int64_t coalesce_bytes = int64_t{64} << 10;

  // How long a small call waits for its answer before it is sent a second time, to another server
  // if there is one. The first answer counts, and the other message is cancelled. So a server that
  // hangs delays its calls by about this long. Small are inputs of up to 64 KiB, and joined calls
  // of up to 1 MiB, outside of regions. At most one message in ten is sent a second time, beside 10
  // at first and one in each second. 0, the default, turns it off. Set it a little above the time
  // that 99 of 100 calls take. Negative values are invalid.
  absl::Duration hedge_delay = absl::ZeroDuration();

  // Whether a small call that blocks, and is not joined with others, may go over a stream
  // (ModelStreamInfer) that stays open, which costs about half of a unary RPC. Small are up to 64
  // KiB of tensors in a message. A call that fails on a stream is repeated once as a unary RPC.
  // Streams carry no deadline and no metadata: at the deadline, the library ends the stream. Calls
  // with a request id or a traceparent, calls that ask for statistics, and calls with tensors in
  // regions are unary RPCs. If `hedge_delay` is set or one of the servers is a `dns:///` address,
  // all calls are. Default true. Turn it off if a proxy between client and server does not take
  // streams well.
  bool streams = true;

  // Called when a call has ended, on the thread that ended it. It must be thread-safe, quick, and
  // must not throw. Default: none.
  std::function<void(const CallRecord&)> on_call = nullptr;

  // Whether a call polls its connection without sleeping while it waits. Default false. If true, an
  // answer arrives some microseconds earlier, and each call under way keeps a core busy.
  bool spin = false;
};

// Options of a single call. Calls without tensors, such as ServerReady, use only the timeout.
struct CallOptions {
  // Overrides Options::timeout for this call. With 0 or less, the call sends nothing and fails with
  // DEADLINE_EXCEEDED at once. So a caller may pass the time left until its own deadline, even if
  // that deadline has passed. Default: none, which means Options::timeout.
  absl::optional<absl::Duration> timeout = absl::nullopt;

  // Called each time a chunk of a split operation has succeeded, with the number of chunks done so
  // far and the number of all chunks, which grows if the server finds chunks too large. Never
  // called for an operation that is not split. Several threads may call it at once, so the numbers
  // may arrive out of order. All calls return before the operation returns. If a call throws, no
  // further chunk starts. When the running chunks have ended, an operation that blocks rethrows the
  // first exception; a future or a callback gets ABORTED. Default: none.
  std::function<void(int64_t num_done, int64_t num_chunks)> on_chunk = nullptr;

  // Sent as the metadata `x-request-id` and `traceparent` (W3C Trace Context). `request_id` is also
  // the id of the message. If the server does not serve a request, its log has the first 64
  // characters of the id, and the trace id of a well-formed `traceparent`. Up to 256 printable
  // ASCII characters each. A call that has one of them is never joined with others. Default: none.
  std::string request_id = "";
  std::string traceparent = "";

  // The server takes requests of a lower number first; 0 means its default. A call with a priority
  // is never joined with others. Default 0.
  uint64_t priority = 0;

  // Filled before the call returns, before its future is ready, or before its callback runs. Must
  // live until then. Untouched or all zero if the call fails before it is sent, and if a joined
  // call ends at its deadline while its message is under way. Default: none.
  CallStatistics* statistics = nullptr;
};

}  // namespace swiglu::client
