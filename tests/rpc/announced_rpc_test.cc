// SPDX-License-Identifier: Apache-2.0
//
// What a caller announces of its message's size, at the limits and where it makes no sense.
#include <string>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "tests/rpc/calls.h"

namespace swiglu::server {
namespace {

constexpr int64_t kMaxRequestBytes = 100'000;

class AnnouncedRpcTest : public HoldingServerTest {
 protected:
  AnnouncedRpcTest() : HoldingServerTest(1, Limited()) { executor_.Release(); }

  static TestServerOptions Limited() {
    TestServerOptions options;
    options.infer.max_request_bytes = kMaxRequestBytes;
    return options;
  }
  // What is charged for a message that was announced so and has not come.
  int64_t ChargedFor(const std::string& announced) {
    RawCall call(server_, kInferMethod, {{"swiglu-request-bytes", announced}});
    int64_t charged = 0;
    EXPECT_TRUE(Eventually([&] {
      charged = server_.admission.used_bytes(MemoryKind::kReceive);
      return charged != 0;
    })) << announced;
    call.Cancel();
    call.Finish();
    EXPECT_TRUE(server_.AwaitIdle());
    return charged;
  }
};

TEST_F(AnnouncedRpcTest, ChargesWhatIsAnnounced) { EXPECT_EQ(ChargedFor("5000"), 5000); }

TEST_F(AnnouncedRpcTest, TakesTheLargestThatMayBeAndRefusesOneByteMore) {
  EXPECT_EQ(ChargedFor(absl::StrCat(kMaxRequestBytes)), kMaxRequestBytes);
  RawCall call(server_, kInferMethod,
               {{"swiglu-request-bytes", absl::StrCat(kMaxRequestBytes + 1)}});
  EXPECT_CALL_STATUS(call.Finish(), grpc::StatusCode::RESOURCE_EXHAUSTED,
                     "request of 100001 bytes exceeds max_request_bytes 100000");
}

// It takes no budget away, and gives none.
TEST_F(AnnouncedRpcTest, WhatMakesNoSenseCountsAsNoAnnouncement) {
  for (const std::string announced :
       {"-1", "-100000", "-9223372036854775808", "9223372036854775808", "1e3", "0x10", "many"}) {
    EXPECT_GT(ChargedFor(announced), 0) << announced;
  }
}

}  // namespace
}  // namespace swiglu::server
