// SPDX-License-Identifier: Apache-2.0
//
// Tests as a user of the library writes them, without a server.
#include "swiglu/mock_connection.h"

#include <algorithm>
#include <cstddef>
#include <memory>
#include <string>
#include <utility>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/inference.pb.h"
#include "swiglu/client.h"
#include "tests/client/bytes.h"

namespace swiglu::client {
namespace {

using ::testing::_;
using ::testing::Field;
using ::testing::NiceMock;
using ::testing::Return;
using ::testing::StrictMock;

class MockConnectionTest : public ::testing::Test {
 protected:
  static void AnswerWithZeros(const Inference& inference, const CallContext&,
                              Connection::Done done) {
    for (const Inference::Output& output : inference.outputs) {
      std::fill(output.bytes.begin(), output.bytes.end(), std::byte{0});
    }
    std::move(done)(CallResult{});
  }

  TensorView View() const { return {Dtype::kFp16, {3, 4}, AsBytes(bytes_)}; }

  const std::string bytes_ = Pattern(24, 1);
  const std::shared_ptr<NiceMock<MockConnection>> connection_ =
      std::make_shared<NiceMock<MockConnection>>();
  const Client client_{connection_};
};

TEST_F(MockConnectionTest, AnswersEveryFormOfCallThroughStartInfer) {
  EXPECT_CALL(*connection_, StartInfer(Field(&Inference::model, "swiglu_forward_fp16"), _, _))
      .Times(3)
      .WillRepeatedly(&AnswerWithZeros);
  const auto h = client_.Forward(View(), View());
  ASSERT_TRUE(h.ok()) << h.status();
  EXPECT_EQ(AsText(h->bytes()), std::string(24, '\0'));
  EXPECT_TRUE(client_.ForwardAsync(View(), View()).Get().ok());
  bool has_ended = false;
  client_.ForwardAsync(View(), View(),
                       [&](const absl::StatusOr<Tensor>& its_h) { has_ended = its_h.ok(); });
  EXPECT_TRUE(has_ended);
}

TEST_F(MockConnectionTest, MayAnswerLater) {
  Connection::Done done;
  EXPECT_CALL(*connection_, StartInfer)
      .WillOnce([&](const Inference&, const CallContext&, Connection::Done its_done) {
        done = std::move(its_done);
      });
  auto future = client_.ForwardAsync(View(), View());
  EXPECT_FALSE(future.IsReady());
  CallResult result;
  result.status = absl::UnavailableError("no server");
  std::move(done)(std::move(result));
  EXPECT_EQ(future.Get().status(), absl::UnavailableError("no server"));
}

TEST_F(MockConnectionTest, MayAnswerCallsThatBlock) {
  EXPECT_CALL(*connection_, StartInfer).Times(0);
  CallResult result;
  result.status = absl::NotFoundError("no model");
  EXPECT_CALL(*connection_, Infer).WillOnce(Return(result));
  EXPECT_EQ(client_.Forward(View(), View()).status(), absl::NotFoundError("no model"));
}

TEST_F(MockConnectionTest, AnswersControlCalls) {
  inference::ServerLiveResponse live;
  live.set_live(true);
  EXPECT_CALL(*connection_, Control(absl::string_view("ServerLive"), _, _))
      .WillOnce(Return(live.SerializeAsString()));
  const auto is_live = client_.ServerLive();
  ASSERT_TRUE(is_live.ok()) << is_live.status();
  EXPECT_TRUE(*is_live);
}

TEST_F(MockConnectionTest, WithoutExpectationsEveryCallFails) {
  EXPECT_EQ(client_.Forward(View(), View()).status(),
            absl::UnimplementedError("the test does not say what StartInfer does"));
  EXPECT_EQ(client_.ServerLive().status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_EQ(connection_->num_servers(), 1);
}

TEST_F(MockConnectionTest, SeesNothingOfACallThatIsRefused) {
  const auto strict = std::make_shared<StrictMock<MockConnection>>();
  const TensorView other{Dtype::kBf16, {3, 4}, AsBytes(bytes_)};
  EXPECT_EQ(Client(strict).Forward(View(), other).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(MockConnectionTest, MayHaveSeveralServers) {
  EXPECT_CALL(*connection_, num_servers).WillRepeatedly(Return(2));
  EXPECT_EQ(client_.UnregisterRegion(RegionKind::kSystem, "region").code(),
            absl::StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace swiglu::client
