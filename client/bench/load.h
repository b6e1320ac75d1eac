// SPDX-License-Identifier: Apache-2.0
//
// A load: which requests are sent, which client sends them, and how they ended. The two clients are
// in raw_load.cc and library_load.cc.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/bench/byte_mix.h"
#include "client/bench/first_answers.h"
#include "client/bench/latency_histogram.h"
#include "client/bench/model.h"
#include "client/bench/pace.h"
#include "client/bench/request_data.h"
#include "client/bench/shared_tensors.h"
#include "swiglu/connection.h"
#include "swiglu/options.h"

namespace swiglu::bench {

struct LoadOptions {
  // HOST:PORT, dns:///NAME:PORT or unix:/path. The library also takes several of these, with commas
  // between them.
  std::string server;
  const Model* model = nullptr;
  // Sizes of requests: the bytes of all inputs together, enough for one element of each input.
  std::vector<WeightedSize> request_bytes;
  // The tokens of these requests, if the model is that of an MLP.
  std::vector<WeightedSize> tokens;
  // Number of connections, 1 or more.
  int num_connections = 8;
  // Requests under way at once, 1 or more. A closed loop always has that many under way, an open
  // loop at most that many.
  int num_in_flight = 16;
  // Threads of the library's load that share these requests and start them by futures, at most as
  // many as requests. 0: each request has a thread, which blocks.
  int num_callers = 0;
  // The largest call that the library joins with others, in bytes of its inputs. 0: none.
  int64_t coalesce_bytes = client::Options().coalesce_bytes;
  // How often the library sends a message at most. 1: a refusal counts, and is not sent again.
  int max_attempts = 1;
  // How long a small call of the library waits before it is sent a second time. 0: it is not.
  absl::Duration hedge_delay = absl::ZeroDuration();
  // Whether the library may use streams.
  bool streams = true;
  // Number of threads of the raw client that take answers, 1 or more.
  int num_threads = 1;
  // Whether the raw client announces the size of each request to the server, as the library does.
  bool announce_size = true;
  // Whether the threads that take answers poll without sleeping.
  bool spin = false;
  // The longest time that a request may take. 0: 30 s plus 1 s for every 100 MB
  // of tensors, inputs and outputs together.
  absl::Duration timeout = absl::ZeroDuration();
  // The shared memory in which requests have their tensors. kNone: messages carry the tensors.
  SharedMemory shared_memory = SharedMemory::kNone;
  // The tensors in shared memory, a set for each request under way. nullptr for kNone. Outlives the
  // load.
  SharedTensors* shared_tensors = nullptr;
  // Compares the answers of a load whose messages carry the tensors. nullptr: nothing compares
  // them. Outlives the load.
  FirstAnswers* first_answers = nullptr;
};

// The timeout of a request with `data` under `options`.
absl::Duration RequestTimeout(const LoadOptions& options, const RequestData& data);

// The tensors for each request size of `options`, in the order of the sizes.
std::vector<RequestData> MakeRequestData(const LoadOptions& options);

// Results of the requests of one size.
struct SizeTally {
  LatencyHistogram latency;  // of requests that succeeded
  int64_t bytes_in = 0;      // of these requests' tensors
  int64_t bytes_out = 0;
};

// How the calls of the library became messages. A message that joins calls belongs to each of them
// by its share.
struct MessageTally {
  int64_t num_calls = 0;    // that were sent, whether they succeeded or not
  double num_messages = 0;  // that carried them. A message that was sent again counts once
  double num_retries = 0;   // how often messages were sent again
};

// Results of requests. Each thread has a tally; the tallies are merged at the end. Not thread-safe.
class Tally {
 public:
  explicit Tally(size_t num_sizes) : sizes_(num_sizes) {}

  // Records a request that ended at `done`. `size` is the index of the request's size in the mix.
  // `data` is what the request sent.
  void Record(size_t size, const RequestData& data, const Turn& turn, Clock::time_point done,
              const absl::Status& status);

  // Records how a call of the library was sent. `num_chunks` is the number of parts that it was
  // split into, or 0 if it was not split.
  void RecordMessages(const client::CallStatistics& statistics, int64_t num_chunks);

  void Merge(const Tally& other);

  const MessageTally& messages() const { return messages_; }
  // By size, in the order of the mix.
  const std::vector<SizeTally>& sizes() const { return sizes_; }
  // The sum over all sizes.
  SizeTally Total() const;
  // The number of errors by code, only for codes that occurred.
  const std::map<absl::StatusCode, int64_t>& num_errors() const { return num_errors_; }
  int64_t NumFailed() const;
  // One of the errors that occurred; OK if there was none.
  const absl::Status& example() const { return example_; }
  // The time at which the last of the recorded requests ended.
  Clock::time_point last_done() const { return last_done_; }

 private:
  std::vector<SizeTally> sizes_;
  MessageTally messages_;
  std::map<absl::StatusCode, int64_t> num_errors_;
  absl::Status example_;
  Clock::time_point last_done_;
};

// A client that is ready to send a load. Each request under way goes through the names of the model
// in turn. Used by one thread.
class Load {
 public:
  virtual ~Load() = default;

  // Starts to send requests, on threads of its own, whenever `pace` gives a turn. Does not block.
  // REQUIRES: Start is called once; `pace` lives until Finish returns.
  virtual void Start(Pace* pace) = 0;

  // Blocks until the pace and every request have ended. REQUIRES: called once, after Start.
  virtual Tally Finish() = 0;
};

// The client that uses the least processor time. It encodes its requests beforehand, makes
// asynchronous calls on completion queues of its own, and looks only at the status and the size of
// an answer. ConnectRawLoad opens the connections. An answer of a wrong size counts as INTERNAL.
// UNAVAILABLE, after 10 s, if the server cannot be reached. REQUIRES: `data` was made for `options`
// and outlives the load, and its requests are smaller than 2 GiB.
absl::StatusOr<std::unique_ptr<Load>> ConnectRawLoad(const LoadOptions& options,
                                                     const std::vector<RequestData>* data);

// A load that uses the client library as programs do: by calls that block, each on a thread of its
// own, or by the futures of a few threads. CreateLibraryLoad makes the connection and the memory
// for answers. The library splits tensors that do not fit into one message. INVALID_ARGUMENT for
// options that the library does not take. REQUIRES: `data` was made for `options` and outlives the
// load; with `num_callers`, the model is not that of an MLP.
absl::StatusOr<std::unique_ptr<Load>> CreateLibraryLoad(const LoadOptions& options,
                                                        const std::vector<RequestData>* data);

// The same over a given connection, of which the load is the last owner.
std::unique_ptr<Load> MakeLibraryLoad(const LoadOptions& options,
                                      const std::vector<RequestData>* data,
                                      std::shared_ptr<client::Connection> connection);

// The time in which the requests of `tally` were counted. It begins with the window of `pace`. It
// ends with that window or with the last request of `tally`, whichever is later. If the window has
// no end, it ends with the last request.
Clock::duration MeasuredTime(const Pace& pace, const Tally& tally);

}  // namespace swiglu::bench
