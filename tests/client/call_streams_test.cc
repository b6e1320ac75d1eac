// SPDX-License-Identifier: Apache-2.0
//
// Small calls that block: which go over a stream, and what becomes of those that fail there.
#include "client/call_streams.h"

#include <atomic>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "client/connection_pool.h"
#include "client/event_queue.h"
#include "gtest/gtest.h"
#include "swiglu/client.h"
#include "swiglu/connection.h"
#include "tests/client/bytes.h"
#include "tests/client/client_fixture.h"
#include "tests/client/fake_server.h"

namespace swiglu::client {
namespace {

constexpr char kUnary[] = "ModelInfer";
constexpr char kStream[] = "ModelStreamInfer";

// A server that takes streams, and notes its calls.
class CallStreamsTest : public ClientTest {
 protected:
  using Handler = std::function<FakeReply(const FakeCall&)>;

  CallStreamsTest() { StartServer("127.0.0.1:0"); }

  void StartServer(const std::string& address) {
    FakeServerOptions options;
    options.takes_streams = true;
    server_ = std::make_unique<FakeServer>(
        [this](const FakeCall& call) {
          absl::MutexLock lock(&mutex_);
          calls_.push_back(call);
          return handler_(call);
        },
        address, options);
  }

  std::unique_ptr<Client> Connect(Options options = {}) {
    options.num_connections = 1;
    return client::Connect(server_->address(), options);
  }

  void SetHandler(Handler handler) {
    absl::MutexLock lock(&mutex_);
    handler_ = std::move(handler);
  }

  // The methods by which the server was called since the last time.
  std::vector<std::string> TakeMethods() {
    absl::MutexLock lock(&mutex_);
    std::vector<std::string> methods;
    for (const FakeCall& call : calls_) methods.push_back(call.method);
    calls_.clear();
    return methods;
  }
  std::set<int> TakeRpcs() {
    absl::MutexLock lock(&mutex_);
    std::set<int> rpcs;
    for (const FakeCall& call : calls_) rpcs.insert(call.rpc);
    calls_.clear();
    return rpcs;
  }

  absl::Status Forward(Client& client, const CallOptions& options = {}) {
    const absl::StatusOr<Tensor> h = client.Forward(View(e_, shape_), View(g_, shape_), options);
    EXPECT_TRUE(!h.ok() || AsText(h->bytes()) == e_);
    return h.status();
  }

  // Calls until the next call goes over a stream.
  void Begin(Client& client) {
    for (int i = 0; i < CallStreams::kFirstRefusals; ++i) {
      EXPECT_EQ(Forward(client), absl::OkStatus());
    }
    EXPECT_EQ(TakeMethods(), std::vector<std::string>(CallStreams::kFirstRefusals, kUnary));
  }

  absl::Mutex mutex_;
  Handler handler_ ABSL_GUARDED_BY(mutex_) = [](const FakeCall& call) { return EchoInfer(call); };
  std::vector<FakeCall> calls_ ABSL_GUARDED_BY(mutex_);
  std::unique_ptr<FakeServer> server_;
};

FakeReply RefuseStreams(const FakeCall& call) {
  if (call.method == kStream) return Refusal(grpc::StatusCode::UNAVAILABLE, "full");
  return EchoInfer(call);
}

// Triton answers so.
FakeReply AnswerStreamsWithAnErrorText(const FakeCall& call) {
  if (call.method != kStream) return EchoInfer(call);
  FakeReply reply;
  reply.message = "no ModelInferResponse";
  return reply;
}

TEST_F(CallStreamsTest, CallsShareAStreamAfterTheFirst) {
  const auto client = Connect();
  Begin(*client);
  for (int i = 0; i < 20; ++i) EXPECT_EQ(Forward(*client), absl::OkStatus());
  {
    absl::MutexLock lock(&mutex_);
    EXPECT_EQ(calls_.back().method, kStream);
  }
  EXPECT_EQ(TakeRpcs().size(), 1u);
}

TEST_F(CallStreamsTest, EveryOperationMayGoOverTheStream) {
  const auto client = Connect();
  Begin(*client);
  const auto gradients = client->Backward(View(dw_, shape_), View(e_, shape_), View(g_, shape_));
  ASSERT_TRUE(gradients.ok()) << gradients.status();
  EXPECT_EQ(AsText(gradients->h.bytes()), dw_);
  EXPECT_EQ(AsText(gradients->de.bytes()), g_);
  std::string in_place = e_;
  EXPECT_EQ(
      client->ForwardInto(View(in_place, shape_), View(g_, shape_), AsWritableBytes(in_place)),
      absl::OkStatus());
  EXPECT_EQ(in_place, e_);
  const auto y = client->Mlp("demo", 0).Forward(View(e_, shape_));
  ASSERT_TRUE(y.ok()) << y.status();
  EXPECT_EQ(AsText(y->y.bytes()), e_);
  EXPECT_EQ(TakeMethods(), std::vector<std::string>(3, kStream));
}

// A stream has no place for their metadata, for the server's times, or for a cancellation.
TEST_F(CallStreamsTest, SomeCallsAreUnaryAlways) {
  const auto client = Connect();
  Begin(*client);
  CallStatistics statistics;
  EXPECT_EQ(Forward(*client, {.request_id = "r"}), absl::OkStatus());
  EXPECT_EQ(Forward(*client, {.traceparent = "t"}), absl::OkStatus());
  EXPECT_EQ(Forward(*client, {.statistics = &statistics}), absl::OkStatus());
  EXPECT_EQ(client->ForwardAsync(View(e_, shape_), View(g_, shape_)).Get().status(),
            absl::OkStatus());
  EXPECT_EQ(TakeMethods(), std::vector<std::string>(4, kUnary));
  EXPECT_EQ(Forward(*client), absl::OkStatus());
  EXPECT_EQ(TakeMethods(), std::vector<std::string>(1, kStream));
}

TEST_F(CallStreamsTest, TheLargestMessageOfAStream) {
  const auto client = Connect();
  Begin(*client);
  const std::string half(32 << 10, 'x');
  const Shape shape = {static_cast<int64_t>(half.size()) / 2};
  EXPECT_EQ(client->Forward(View(half, shape), View(half, shape)).status(), absl::OkStatus());
  EXPECT_EQ(TakeMethods(), std::vector<std::string>(1, kStream));
  const std::string more = half + "xx";
  const Shape more_shape = {static_cast<int64_t>(more.size()) / 2};
  EXPECT_EQ(client->Forward(View(more, more_shape), View(more, more_shape)).status(),
            absl::OkStatus());
  EXPECT_EQ(TakeMethods(), std::vector<std::string>(1, kUnary));
}

TEST_F(CallStreamsTest, ACallWithTensorsInARegionIsUnary) {
  const auto client = Connect();
  Begin(*client);
  SetHandler([](const FakeCall& call) {
    inference::ModelInferRequest request;
    request.ParseFromString(call.message);
    request.add_raw_input_contents("");
    return Answer(EchoInfer(request));
  });
  const InputTensor e(Dtype::kFp16, shape_, RegionPart{"r", 100, 0, 24});
  const InputTensor g(Dtype::kFp16, shape_, RegionPart{"r", 100, 24, 24});
  EXPECT_EQ(client->ForwardInto(e, g, RegionPart{"r", 100, 48, 24}), absl::OkStatus());
  EXPECT_EQ(TakeMethods(), std::vector<std::string>{kUnary});
}

TEST_F(CallStreamsTest, StreamsCanBeTurnedOff) {
  const auto client = Connect({.streams = false});
  for (int i = 0; i < 20; ++i) EXPECT_EQ(Forward(*client), absl::OkStatus());
  EXPECT_EQ(TakeMethods(), std::vector<std::string>(20, kUnary));
}

TEST_F(CallStreamsTest, AClientThatHedgesUsesNone) {
  const auto client = Connect({.hedge_delay = absl::Seconds(10)});
  for (int i = 0; i < 20; ++i) EXPECT_EQ(Forward(*client), absl::OkStatus());
  EXPECT_EQ(TakeMethods(), std::vector<std::string>(20, kUnary));
}

TEST_F(CallStreamsTest, AnErrorIsThatOfTheUnaryCall) {
  CallStatistics seen;
  const auto client =
      Connect({.on_call = [&seen](const CallRecord& record) { seen = record.statistics; }});
  Begin(*client);
  SetHandler([](const FakeCall&) { return Refusal(grpc::StatusCode::NOT_FOUND, "no model"); });
  EXPECT_EQ(Forward(*client),
            absl::NotFoundError(absl::StrCat("no model (from ", server_->address(), ")")));
  EXPECT_EQ(TakeMethods(), (std::vector<std::string>{kStream, kUnary}));
  EXPECT_EQ(seen.num_messages, 2);
}

// It may have been written in part over the inputs.
TEST_F(CallStreamsTest, AWrongAnswerIsNotAskedForAgain) {
  const auto client = Connect();
  Begin(*client);
  SetHandler([](const FakeCall& call) {
    inference::ModelInferRequest request;
    request.ParseFromString(call.message);
    inference::ModelInferResponse response = EchoInfer(request);
    response.mutable_outputs(0)->set_name("k");
    return Answer(response);
  });
  EXPECT_EQ(Forward(*client),
            absl::InternalError(absl::StrCat("bad response of 'swiglu_forward_fp16': an output is "
                                             "'k'; expected 'h' (from ",
                                             server_->address(), ")")));
  EXPECT_EQ(TakeMethods(), std::vector<std::string>{kStream});
}

TEST_F(CallStreamsTest, EachFailureDoublesThePauseOfStreams) {
  for (const Handler& fails : {Handler(RefuseStreams), Handler(AnswerStreamsWithAnErrorText)}) {
    const auto client = Connect();
    SetHandler(fails);
    for (const int num_unary : {8, 16, 32}) {
      for (int i = 0; i < num_unary; ++i) EXPECT_EQ(Forward(*client), absl::OkStatus());
      EXPECT_EQ(TakeMethods(), std::vector<std::string>(num_unary, kUnary));
      EXPECT_EQ(Forward(*client), absl::OkStatus());
      EXPECT_EQ(TakeMethods(), (std::vector<std::string>{kStream, kUnary}));
    }
    // A success makes it short again.
    SetHandler([](const FakeCall& call) { return EchoInfer(call); });
    for (int i = 0; i < 65; ++i) EXPECT_EQ(Forward(*client), absl::OkStatus());
    EXPECT_EQ(TakeMethods().back(), kStream);
    SetHandler(fails);
    for (int i = 0; i < 17; ++i) EXPECT_EQ(Forward(*client), absl::OkStatus());
    EXPECT_EQ(TakeMethods().size(), 18u);
    EXPECT_EQ(Forward(*client), absl::OkStatus());
    EXPECT_EQ(TakeMethods(), (std::vector<std::string>{kStream, kUnary}));
  }
}

TEST_F(CallStreamsTest, ADeadlineEndsTheCallAndTheStream) {
  for (const bool spins : {false, true}) {
    SetHandler([](const FakeCall& call) { return EchoInfer(call); });
    const auto client = Connect({.spin = spins});
    Begin(*client);
    SetHandler([](const FakeCall&) { return NoReply(); });
    const int num_ended = server_->num_ended_streams();
    EXPECT_EQ(Forward(*client, {.timeout = absl::Milliseconds(20)}),
              absl::DeadlineExceededError(
                  absl::StrCat("no answer from ", server_->address(), " within 20ms")));
    EXPECT_EQ(TakeMethods(), std::vector<std::string>{kStream});
    server_->num_ended_streams().wait(num_ended);
    SetHandler([](const FakeCall& call) { return EchoInfer(call); });
    EXPECT_EQ(Forward(*client), absl::OkStatus());
    EXPECT_EQ(TakeMethods(), std::vector<std::string>{kUnary});
  }
}

// By what an owner of the connection passes with the call.
TEST_F(CallStreamsTest, ACancelledCallEndsItsStream) {
  Options options;
  options.num_connections = 1;
  options.timeout = absl::Minutes(10);
  const auto connection = MakeConnection(server_->address(), options);
  ASSERT_TRUE(connection.ok()) << connection.status();
  const Client client(*connection, options);
  for (int i = 0; i <= CallStreams::kFirstRefusals; ++i) {
    EXPECT_TRUE(client.Forward(View(e_, shape_), View(g_, shape_)).ok());
  }
  EXPECT_EQ(TakeMethods().back(), kStream);
  Cancellation cancellation;
  SetHandler([&cancellation](const FakeCall&) {
    cancellation.Cancel();
    return NoReply();
  });
  std::string h(24, '?');
  Inference inference{.model = "swiglu_forward_fp16",
                      .dtype = Dtype::kFp16,
                      .shape = shape_,
                      .inputs = {},
                      .outputs = {}};
  inference.inputs = {{"e", AsBytes(e_)}, {"g", AsBytes(g_)}};
  inference.outputs = {{"h", AsWritableBytes(h)}};
  const CallOptions call_options;
  CallContext context{TimeLimit(absl::Minutes(10)), &call_options};
  context.cancellation = &cancellation;
  EXPECT_EQ((*connection)->Infer(inference, context).status,
            absl::CancelledError("the call was cancelled"));
  EXPECT_EQ(TakeMethods(), std::vector<std::string>{kStream});
  server_->num_ended_streams().wait(0);
}

// As by a proxy that waits for the end of the stream.
TEST_F(CallStreamsTest, AFirstMessageThatIsHeldBackIsRepeatedSoon) {
  const auto client = Connect({.timeout = absl::Minutes(10)});
  Begin(*client);
  SetHandler(
      [](const FakeCall& call) { return call.method == kStream ? NoReply() : EchoInfer(call); });
  EXPECT_EQ(Forward(*client), absl::OkStatus());
  EXPECT_EQ(TakeMethods(), (std::vector<std::string>{kStream, kUnary}));
}

TEST_F(CallStreamsTest, ACallSurvivesTheEndOfItsStream) {
  const auto client = Connect({.timeout = absl::Minutes(10)});
  Begin(*client);
  EXPECT_EQ(Forward(*client), absl::OkStatus());
  const std::string address = server_->address();
  server_.reset();
  StartServer(address);
  EXPECT_EQ(Forward(*client), absl::OkStatus());
}

// The second answer comes to the next message, which has another id.
TEST_F(CallStreamsTest, ACallNeverGetsTheAnswerToAnother) {
  const auto client = Connect();
  Begin(*client);
  SetHandler([](const FakeCall& call) {
    inference::ModelInferRequest request;
    request.ParseFromString(call.message);
    inference::ModelInferResponse response = EchoInfer(request);
    response.set_id(request.id());
    FakeReply reply = Answer(response);
    reply.twice = call.method == kStream;
    return reply;
  });
  EXPECT_EQ(Forward(*client), absl::OkStatus());
  EXPECT_EQ(Forward(*client), absl::InternalError(absl::StrCat(
                                  "bad response of 'swiglu_forward_fp16': it answers the "
                                  "message '1', not '2' (from ",
                                  server_->address(), ")")));
  EXPECT_EQ(Forward(*client), absl::OkStatus());
}

TEST_F(CallStreamsTest, AMessageHasItsPriority) {
  const auto client = Connect();
  Begin(*client);
  EXPECT_EQ(Forward(*client, {.priority = 3}), absl::OkStatus());
  absl::MutexLock lock(&mutex_);
  ASSERT_EQ(calls_.back().method, kStream);
  inference::ModelInferRequest request;
  ASSERT_TRUE(request.ParseFromString(calls_.back().message));
  EXPECT_EQ(request.parameters().at("priority").uint64_param(), 3u);
}

TEST_F(CallStreamsTest, AnIdleStreamIsClosed) {
  const auto client = Connect();
  Begin(*client);
  EXPECT_EQ(Forward(*client), absl::OkStatus());
  EXPECT_EQ(TakeMethods(), std::vector<std::string>{kStream});
  server_->num_ended_streams().wait(0);
  EXPECT_EQ(Forward(*client), absl::OkStatus());
  EXPECT_EQ(TakeMethods(), std::vector<std::string>{kStream});
}

// The streams alone, with a time of the test's own.
class StreamsOfQueuesTest : public CallStreamsTest {
 protected:
  struct Streams {
    explicit Streams(ConnectionPool* pool) : streams(pool, &queue) {}

    EventQueue queue;
    CallStreams streams;
  };

  std::unique_ptr<Streams> NewStreams() {
    auto streams = std::make_unique<Streams>(&pool_);
    for (int i = 0; i < CallStreams::kFirstRefusals; ++i) {
      EXPECT_FALSE(streams->streams.Take(24, {}, now_));
    }
    return streams;
  }

  bool Call(Streams& own) {
    if (!own.streams.Take(24, {}, now_)) return false;
    OutgoingMessage message;
    inference::ModelInferRequest request;
    request.add_inputs();
    request.add_inputs();
    request.add_raw_input_contents(e_);
    message.Append(grpc::Slice(request.SerializeAsString()));
    own.streams.Send(std::move(message), absl::Minutes(10), nullptr,
                     [&](CallStreams::Outcome outcome) {
                       EXPECT_TRUE(outcome.answer.has_value());
                       own.queue.Notify();
                     });
    own.queue.RunUntilNotified(Wait::kSleep);
    return true;
  }

  ConnectionPool pool_{{server_->address()}, 1, Credentials::Insecure()};
  absl::Time now_ = absl::Now();
};

TEST_F(StreamsOfQueuesTest, AnOldStreamMakesWayForANewOne) {
  const auto own = NewStreams();
  EXPECT_TRUE(Call(*own));
  now_ += CallStreams::kMostAge - absl::Nanoseconds(1);
  EXPECT_TRUE(Call(*own));
  EXPECT_EQ(TakeRpcs().size(), 1u);
  now_ += absl::Nanoseconds(1);
  EXPECT_TRUE(Call(*own));
  EXPECT_TRUE(Call(*own));
  EXPECT_EQ(TakeRpcs().size(), 1u);
  server_->num_ended_streams().wait(0);
}

TEST_F(StreamsOfQueuesTest, AreIdleSomeTimeAfterTheirLastUse) {
  const auto own = NewStreams();
  EXPECT_FALSE(own->streams.IsIdle(now_ + absl::Hours(1)));
  EXPECT_TRUE(Call(*own));
  EXPECT_FALSE(own->streams.IsIdle(now_ + CallStreams::kIdleTime - absl::Nanoseconds(1)));
  EXPECT_TRUE(own->streams.IsIdle(now_ + CallStreams::kIdleTime));
  own->streams.TakeStreams();
  EXPECT_FALSE(own->streams.IsIdle(now_ + absl::Hours(1)));
}

TEST_F(StreamsOfQueuesTest, AConnectionHasAFew) {
  std::vector<std::unique_ptr<Streams>> all;
  for (int i = 0; i < CallStreams::kMostOnConnection; ++i) {
    all.push_back(NewStreams());
    EXPECT_TRUE(Call(*all.back()));
  }
  const auto more = NewStreams();
  EXPECT_FALSE(Call(*more));
  all.front()->streams.TakeStreams();
  EXPECT_TRUE(Call(*more));
  EXPECT_FALSE(Call(*all.front()));
}

}  // namespace
}  // namespace swiglu::client
