// SPDX-License-Identifier: Apache-2.0
//
// Futures and callbacks of a client, over a connection that the test answers.
#include "swiglu/future.h"

#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>

#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "gtest/gtest.h"
#include "swiglu/client.h"
#include "tests/client/bytes.h"
#include "tests/client/fake_connection.h"

namespace swiglu::client {
namespace {

using ForwardFuture = Future<absl::StatusOr<Tensor>>;

class FutureTest : public ::testing::Test {
 protected:
  ForwardFuture Start(const CallOptions& options = {}) {
    return client_.ForwardAsync({Dtype::kFp16, {3, 4}, AsBytes(e_)},
                                {Dtype::kFp16, {3, 4}, AsBytes(g_)}, options);
  }
  bool IsCancelled(size_t number) const {
    return connection_->arrival(number).context.cancellation->is_cancelled();
  }

  // Answers call `number` as cancelled when it is, and not before.
  std::thread AnswerWhenCancelled(size_t number) {
    return std::thread([this, number] {
      absl::Notification is_cancelled;
      Cancellation& cancellation = *connection_->arrival(number).context.cancellation;
      cancellation.SetStop([&] {
        if (!is_cancelled.HasBeenNotified()) is_cancelled.Notify();
      });
      is_cancelled.WaitForNotification();
      cancellation.ClearStop();
      connection_->Answer(number, ResultOf(absl::CancelledError("the call was cancelled")));
    });
  }

  const std::shared_ptr<FakeConnection> connection_ = std::make_shared<FakeConnection>();
  const Client client_{connection_};
  const std::string e_ = Pattern(24, 1), g_ = Pattern(24, 2);
};

TEST_F(FutureTest, IsReadyWhenTheCallHasEnded) {
  ForwardFuture future = Start();
  EXPECT_FALSE(future.IsReady());
  EXPECT_FALSE(future.WaitFor(absl::ZeroDuration()));
  EXPECT_FALSE(future.WaitFor(absl::Milliseconds(1)));
  connection_->Answer(0);
  EXPECT_TRUE(future.IsReady());
  EXPECT_TRUE(future.WaitFor(absl::ZeroDuration()));
  future.Wait();
  const absl::StatusOr<Tensor> h = future.Get();
  ASSERT_TRUE(h.ok()) << h.status();
  EXPECT_EQ(h->shape(), (Shape{3, 4}));
  EXPECT_EQ(h->bytes().size(), 24u);
}

TEST_F(FutureTest, WaitsForAnAnswerOfAnotherThread) {
  for (int form = 0; form < 3; ++form) {
    ForwardFuture future = Start();
    std::thread answers([&] { connection_->Answer(connection_->num_arrivals() - 1); });
    if (form == 0) future.Wait();
    if (form == 1) {
      EXPECT_TRUE(future.WaitFor(absl::InfiniteDuration()));
    }
    EXPECT_TRUE(future.Get().ok());
    answers.join();
  }
}

TEST_F(FutureTest, HasTheErrorOfTheCall) {
  ForwardFuture future = Start();
  connection_->Answer(0, ResultOf(absl::NotFoundError("no model")));
  EXPECT_EQ(future.Get().status(), absl::NotFoundError("no model"));
}

TEST_F(FutureTest, IsReadyAtOnceIfTheCallIsRefused) {
  ForwardFuture future = client_.ForwardAsync({Dtype::kFp16, {3, 4}, AsBytes(e_)},
                                              {Dtype::kFp16, {4, 3}, AsBytes(g_)});
  EXPECT_TRUE(future.IsReady());
  EXPECT_EQ(future.Get().status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(connection_->num_arrivals(), 0u);
}

TEST_F(FutureTest, CancelAsksTheCallToEnd) {
  ForwardFuture future = Start();
  EXPECT_FALSE(IsCancelled(0));
  future.Cancel();
  EXPECT_TRUE(IsCancelled(0));
  EXPECT_FALSE(future.IsReady());
  connection_->Answer(0, ResultOf(absl::CancelledError("the call was cancelled")));
  EXPECT_EQ(future.Get().status(), absl::CancelledError("the call was cancelled"));
}

TEST_F(FutureTest, AnotherThreadMayCancelWhileOneWaits) {
  ForwardFuture future = Start();
  std::thread answers = AnswerWhenCancelled(0);
  std::thread cancels([&future] { future.Cancel(); });
  EXPECT_EQ(future.Get().status(), absl::CancelledError("the call was cancelled"));
  answers.join();
  cancels.join();
  future.Cancel();
  EXPECT_TRUE(future.IsReady());
}

TEST_F(FutureTest, CancelAfterTheEndDoesNothing) {
  ForwardFuture future = Start();
  connection_->Answer(0);
  future.Cancel();
  EXPECT_TRUE(future.Get().ok());
}

TEST_F(FutureTest, DestructionCancelsAndWaits) {
  std::thread answers;
  {
    const ForwardFuture future = Start();
    answers = AnswerWhenCancelled(0);
  }
  answers.join();
}

TEST_F(FutureTest, DestructionAfterTheEndCancelsNothing) {
  absl::optional<ForwardFuture> future = Start();
  Cancellation* const cancellation = connection_->arrival(0).context.cancellation;
  bool is_stopped = false;
  cancellation->SetStop([&] { is_stopped = true; });
  connection_->Answer(0);
  future.reset();
  EXPECT_FALSE(is_stopped);
}

TEST_F(FutureTest, AssignmentEndsTheCallThatWasThere) {
  ForwardFuture future = Start();
  std::thread answers = AnswerWhenCancelled(0);
  future = Start();
  answers.join();
  EXPECT_FALSE(IsCancelled(1));
  EXPECT_FALSE(future.IsReady());
  connection_->Answer(1);
  EXPECT_TRUE(future.Get().ok());
}

TEST_F(FutureTest, CanBeMoved) {
  ForwardFuture first = Start();
  ForwardFuture second = std::move(first);
  ForwardFuture third;
  third = std::move(second);
  EXPECT_FALSE(IsCancelled(0));
  connection_->Answer(0);
  EXPECT_TRUE(third.Get().ok());
}

TEST_F(FutureTest, AnEmptyOneCanBeDestroyed) {
  const ForwardFuture future;
  ForwardFuture taken = Start();
  connection_->Answer(0);
  EXPECT_TRUE(taken.Get().ok());
}

TEST_F(FutureTest, KeepsTheOptionsOfTheCall) {
  ForwardFuture future = Start({.request_id = std::string(100, 'x')});
  EXPECT_EQ(connection_->arrival(0).context.options->request_id, std::string(100, 'x'));
  EXPECT_EQ(connection_->arrival(0).inference->model, "swiglu_forward_fp16");
  connection_->Answer(0);
}

TEST_F(FutureTest, StatisticsAreThereBeforeItIsReady) {
  CallStatistics statistics;
  ForwardFuture future = Start({.statistics = &statistics});
  CallResult result = ResultOf(absl::OkStatus());
  result.statistics.server = "SERVER";
  connection_->Answer(0, result);
  EXPECT_TRUE(future.IsReady());
  EXPECT_EQ(statistics.server, "SERVER");
  EXPECT_EQ(statistics.num_messages, 1);
}

TEST_F(FutureTest, AnExceptionOfOnChunkIsAnError) {
  ForwardFuture future = Start();
  CallResult result = ResultOf(absl::AbortedError("on_chunk threw an exception"));
  result.exception = std::make_exception_ptr(std::runtime_error("on_chunk"));
  connection_->Answer(0, result);
  EXPECT_EQ(future.Get().status(), absl::AbortedError("on_chunk threw an exception"));
}

// ---- Callbacks ----

TEST_F(FutureTest, ACallbackRunsWhereTheCallEnds) {
  absl::optional<absl::StatusOr<Tensor>> h;
  const TensorView e{Dtype::kFp16, {3, 4}, AsBytes(e_)};
  client_.ForwardAsync(e, e, [&h](absl::StatusOr<Tensor> its_h) { h = std::move(its_h); });
  EXPECT_FALSE(h.has_value());
  connection_->Answer(0);
  ASSERT_TRUE(h.has_value());
  EXPECT_TRUE(h->ok());
}

TEST_F(FutureTest, ACallbackOfACallThatIsRefusedRunsAtOnce) {
  int num_calls = 0;
  client_.ForwardAsync({Dtype::kFp16, {3, 4}, AsBytes(e_)}, {Dtype::kBf16, {3, 4}, AsBytes(g_)},
                       [&](const absl::StatusOr<Tensor>& h) {
                         ++num_calls;
                         EXPECT_EQ(h.status().code(), absl::StatusCode::kInvalidArgument);
                       });
  EXPECT_EQ(num_calls, 1);
}

TEST_F(FutureTest, ACallbackMayStartTheNextCall) {
  const TensorView e{Dtype::kFp16, {3, 4}, AsBytes(e_)};
  bool has_ended = false;
  client_.ForwardAsync(e, e, [&](const absl::StatusOr<Tensor>&) {
    client_.ForwardAsync(e, e, [&](const absl::StatusOr<Tensor>&) { has_ended = true; });
  });
  connection_->Answer(0);
  ASSERT_EQ(connection_->num_arrivals(), 2u);
  connection_->Answer(1);
  EXPECT_TRUE(has_ended);
}

}  // namespace
}  // namespace swiglu::client
