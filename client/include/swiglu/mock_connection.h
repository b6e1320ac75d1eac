// SPDX-License-Identifier: Apache-2.0
//
// A connection for tests of programs that call a swiglu-server: they need no server. This header
// needs GoogleMock, which the library itself does not; link GTest::gmock. An example:
//
//   const auto connection = std::make_shared<testing::NiceMock<MockConnection>>();
//   EXPECT_CALL(*connection, StartInfer)
//       .WillOnce([](const Inference& inference, const CallContext&, Connection::Done done) {
//         absl::c_fill(inference.outputs[0].bytes, std::byte{0});
//         std::move(done)(CallResult{});
//       });
//   const Client client(connection);
#pragma once

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "gmock/gmock.h"
#include "swiglu/connection.h"
#include "swiglu/inference.h"

namespace swiglu::client {

// Calls that block go to Infer, all others to StartInfer. Unless a test says otherwise, Infer waits
// for StartInfer, so that a test may set expectations of StartInfer alone; calls fail with
// UNIMPLEMENTED; and there is one server. An action of StartInfer calls `done` once, at once or
// later: a call does not end before. An action that succeeds fills the outputs of the inference
// first. The checks of Client come before the connection, so a mock sees well-formed inferences.
class MockConnection : public Connection {
 public:
  MockConnection() {
    ON_CALL(*this, StartInfer).WillByDefault([](const Inference&, const CallContext&, Done done) {
      CallResult result;
      result.status = absl::UnimplementedError("the test does not say what StartInfer does");
      std::move(done)(std::move(result));
    });
    ON_CALL(*this, Infer)
        .WillByDefault([this](const Inference& inference, const CallContext& context) {
          return Connection::Infer(inference, context);
        });
    ON_CALL(*this, Control)
        .WillByDefault(
            [this](absl::string_view rpc, const std::string& request, const TimeLimit& limit) {
              return Connection::Control(rpc, request, limit);
            });
    ON_CALL(*this, num_servers).WillByDefault([this] { return Connection::num_servers(); });
    ON_CALL(*this, has_one_server).WillByDefault([this] { return Connection::has_one_server(); });
  }

  MOCK_METHOD(void, StartInfer, (const Inference& inference, const CallContext& context, Done done),
              (override));
  MOCK_METHOD(CallResult, Infer, (const Inference& inference, const CallContext& context),
              (override));
  MOCK_METHOD(absl::StatusOr<std::string>, Control,
              (absl::string_view rpc, const std::string& request, const TimeLimit& limit),
              (override));
  MOCK_METHOD(int, num_servers, (), (const, override));
  MOCK_METHOD(bool, has_one_server, (), (const, override));
};

}  // namespace swiglu::client
