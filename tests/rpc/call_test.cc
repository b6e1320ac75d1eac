// SPDX-License-Identifier: Apache-2.0
//
// What a call tells its handler: each thing once, one after the other, from whichever threads they
// come. Over a real connection, since only gRPC can make a call begin.
#include "server/transport/call.h"

#include <algorithm>
#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/generic/generic_stub.h"
#include "grpcpp/security/credentials.h"
#include "grpcpp/security/server_credentials.h"
#include "grpcpp/server_builder.h"
#include "gtest/gtest.h"
#include "server/transport/io_threads.h"
#include "tests/rpc/test_doubles.h"

namespace swiglu::server {
namespace {

using Told = std::vector<std::string>;

// Writes down what it is told, and whether two threads ever told it something at once. Reads and
// answers every message.
class Scribe final : public CallHandler {
 public:
  explicit Scribe(Call* call) : call_(call) {}

  void OnStart() override {
    Write("start");
    call_->Read();
    started.Notify();
  }
  void OnMessage(grpc::ByteBuffer& message) override {
    Write("message");
    call_->Write(message);
  }
  void OnNoMessage() override { Write("no message"); }
  void OnWritten(bool ok) override {
    Write("written");
    if (ok) call_->Read();
  }
  void OnGone(bool) override {
    Write("gone");
    gone.Notify();
  }
  void OnServerEvent(ServerEvent event) override {
    if (event == ServerEvent::kHealthChanged) return Write("health");
    if (event == ServerEvent::kDraining) return Write("draining");
    Write("tick");
    if (holds_ticks) {
      inside_.fetch_add(1);
      held.Notify();
      EXPECT_TRUE(go_on.WaitForNotificationWithTimeout(kPatience));
      inside_.fetch_sub(1);
    }
  }

  absl::Notification started;
  absl::Notification gone;
  // Whoever tells of a tick is kept inside until `go_on`.
  std::atomic<bool> holds_ticks{false};
  absl::Notification held;
  absl::Notification go_on;

  int64_t Count(const std::string& what) const {
    return std::count(told.begin(), told.end(), what);
  }
  Told told;  // without a lock: the call sees to it
  std::atomic<bool> overlapped{false};

 private:
  void Write(const std::string& what) {
    if (inside_.fetch_add(1) != 0) overlapped = true;
    told.push_back(what);
    inside_.fetch_sub(1);
  }

  Call* const call_;
  std::atomic<int> inside_{0};
};

// A server that takes one call, and the client that makes it.
class CallTest : public testing::Test, private Call::Home {
 protected:
  CallTest() {
    int port = 0;
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterAsyncGenericService(&service_);
    IoThreads::Queues queues;
    queues.push_back(builder.AddCompletionQueue());
    server_ = builder.BuildAndStart();
    threads_ = std::make_unique<IoThreads>(std::move(queues), 2);
    queue_ = &threads_->Bind();
    call_ = CallPtr(new Call(this, queue_));
    call_->Accept(&service_);

    const auto channel = grpc::CreateChannel("127.0.0.1:" + std::to_string(port),
                                             grpc::InsecureChannelCredentials());
    client_ = grpc::GenericStub(channel).PrepareCall(&context_, "/any", &answers_);
    client_->StartCall(nullptr);
    EXPECT_TRUE(AwaitClient());
    EXPECT_TRUE(Eventually([this] { return is_accepted_.load(); }));
    EXPECT_TRUE(scribe_->started.WaitForNotificationWithTimeout(kPatience));
  }
  ~CallTest() override {
    End();
    EXPECT_FALSE(scribe_->overlapped);
  }

  // Ends the call, and waits until the handler was told all there is.
  void End() {
    if (std::exchange(ended_, true)) return;
    context_.TryCancel();
    EXPECT_TRUE(scribe_->gone.WaitForNotificationWithTimeout(kPatience));
    server_->Shutdown();
    queue_->Unbind();
    threads_->Shutdown();
  }

  // Waits for the client's step; whether that succeeded.
  bool AwaitClient() {
    void* tag = nullptr;
    bool ok = false;
    return answers_.Next(&tag, &ok) && ok;
  }
  // One message there and back.
  void Exchange() {
    const grpc::Slice slice("message");
    client_->Write(grpc::ByteBuffer(&slice, 1), nullptr);
    EXPECT_TRUE(AwaitClient());
    grpc::ByteBuffer answer;
    client_->Read(&answer, nullptr);
    EXPECT_TRUE(AwaitClient());
  }

 private:
  std::unique_ptr<CallHandler> OnAccepted(Call& call) override {
    auto scribe = std::make_unique<Scribe>(&call);
    scribe_ = scribe.get();
    is_accepted_ = true;
    return scribe;
  }
  void OnGone(Call&) override {}
  std::string DescribePeer(absl::string_view) override { return ""; }
  // The call outlives its queue, for its handler tells what it was told.
  void OnDestroyed(IoQueue*) override {}

  grpc::AsyncGenericService service_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<IoThreads> threads_;
  std::atomic<bool> is_accepted_{false};
  bool ended_ = false;
  grpc::CompletionQueue answers_;

 protected:
  grpc::ClientContext context_;

 private:
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> client_;

 protected:
  IoQueue* queue_ = nullptr;
  CallPtr call_;
  Scribe* scribe_ = nullptr;  // of the call
};

// What happens while the handler is busy waits, and is told by the thread that is inside.
TEST_F(CallTest, TellsWhatHappensMeanwhileAfterwardsAndOnce) {
  scribe_->holds_ticks = true;
  std::thread ticker([this] { call_->Deliver(ServerEvent::kTick); });
  ASSERT_TRUE(scribe_->held.WaitForNotificationWithTimeout(kPatience));
  call_->Deliver(ServerEvent::kDraining);
  call_->Deliver(ServerEvent::kHealthChanged);
  call_->Deliver(ServerEvent::kDraining);
  scribe_->go_on.Notify();
  ticker.join();
  EXPECT_EQ(scribe_->told, (Told{"start", "tick", "health", "draining"}));
}

TEST_F(CallTest, TellsOfItsEndThoughTheHandlerWasBusy) {
  scribe_->holds_ticks = true;
  std::thread ticker([this] { call_->Deliver(ServerEvent::kTick); });
  ASSERT_TRUE(scribe_->held.WaitForNotificationWithTimeout(kPatience));
  context_.TryCancel();
  ASSERT_TRUE(Eventually([this] { return call_->cancelled()->load(); }));
  scribe_->go_on.Notify();
  ticker.join();
  End();
  EXPECT_EQ(scribe_->Count("no message"), 1);
  EXPECT_EQ(scribe_->Count("gone"), 1);
}

TEST_F(CallTest, LosesNothingThatManyThreadsHaveToTell) {
  constexpr int kExchanges = 2'000;
  std::atomic<bool> stop{false};
  std::vector<std::thread> tellers;
  for (const ServerEvent event : {ServerEvent::kTick, ServerEvent::kHealthChanged}) {
    tellers.emplace_back([this, event, &stop] {
      do {
        call_->Deliver(event);
      } while (!stop);
    });
  }
  for (int i = 0; i < kExchanges; ++i) Exchange();
  stop = true;
  for (std::thread& teller : tellers) teller.join();
  End();
  EXPECT_EQ(scribe_->Count("message"), kExchanges);
  EXPECT_EQ(scribe_->Count("written"), kExchanges);
  EXPECT_GE(scribe_->Count("tick"), 1);
  EXPECT_GE(scribe_->Count("health"), 1);
}

}  // namespace
}  // namespace swiglu::server
