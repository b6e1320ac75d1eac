// SPDX-License-Identifier: Apache-2.0
//
// How many calls may be open. Which handler each method has is tested over real connections.
#include "server/service/router.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "server/service/control_call.h"
#include "server/service/request_log.h"

namespace swiglu::server {
namespace {

// Of calls that never came in.
class HomeOfNone final : public Call::Home {
 public:
  std::unique_ptr<CallHandler> OnAccepted(Call&) override { return nullptr; }
  void OnGone(Call&) override {}
  std::string DescribePeer(absl::string_view) override { return ""; }
  void OnDestroyed(IoQueue*) override {}
};

constexpr char kTooMany[] = "2 calls are open, the most at once";

class RouterTest : public testing::Test {
 protected:
  // Why a call is refused that has no method. Its handler stays until `handlers_` loses it.
  std::string Refuse(int64_t num_open) {
    handlers_.push_back(router_.MakeHandler(*call_, num_open));
    return std::string(static_cast<RefusedCall&>(*handlers_.back()).status().message());
  }

  static InferDependencies With(RequestLog* log) {
    InferDependencies infer;
    infer.log = log;
    return infer;
  }

  RequestLog log_;
  Router router_{With(&log_), nullptr, nullptr, {.max_calls = 2}};
  HomeOfNone home_;
  std::shared_ptr<Call> call_ = std::make_shared<Call>(&home_, nullptr);
  std::vector<std::unique_ptr<CallHandler>> handlers_;
};

TEST_F(RouterTest, RefusesCallsAtTheLimit) {
  EXPECT_NE(Refuse(1), kTooMany);
  handlers_.clear();
  EXPECT_EQ(Refuse(2), kTooMany);
}

TEST_F(RouterTest, ARefusedCallDoesNotCountAsOpen) {
  EXPECT_EQ(Refuse(2), kTooMany);
  EXPECT_NE(Refuse(2), kTooMany) << "one of the two is the refused one";
  EXPECT_EQ(Refuse(4), kTooMany);
}

TEST_F(RouterTest, ARefusedCallThatHasGoneCountsNoLonger) {
  for (int i = 0; i < 10; ++i) {
    EXPECT_EQ(Refuse(2), kTooMany);
    handlers_.clear();
  }
}

}  // namespace
}  // namespace swiglu::server
