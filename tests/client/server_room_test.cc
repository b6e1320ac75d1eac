// SPDX-License-Identifier: Apache-2.0
//
// The library with the program swiglu-server that has little memory: an operation larger than the
// server's memory narrows until it fits.
#include <cstdint>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "swiglu/client.h"
#include "tests/client/bytes.h"
#include "tests/client/server_process.h"

namespace swiglu::client {
namespace {

TEST(ServerRoomTest, AnOperationFitsIntoWhateverRoomTheServerHas) {
  constexpr int64_t kBytes = int64_t{64} << 20;
  const std::string e = Numbers(kBytes, 1), g = Numbers(kBytes, 2);
  const auto view = [](const std::string& bytes) {
    return TensorView{Dtype::kFp16, {kBytes / 2}, AsBytes(bytes)};
  };
  std::string expected(kBytes, '\0'), actual(kBytes, '\0');
  const ServerProcess roomy({});
  ASSERT_TRUE(Connect(roomy)->ForwardInto(view(e), view(g), AsWritableBytes(expected)).ok());
  for (const char* const budget : {"8MiB", "64MiB", "80MiB", "96MiB", "128MiB"}) {
    const ServerProcess server({absl::StrCat("--memory_budget_bytes=", budget)});
    for (const int num_connections : {1, 4}) {
      const auto client = Connect(server, {.num_connections = num_connections});
      actual.assign(actual.size(), '\0');
      const absl::Status status = client->ForwardInto(view(e), view(g), AsWritableBytes(actual));
      EXPECT_TRUE(status.ok()) << budget << ", connections " << num_connections << ": " << status;
      EXPECT_TRUE(actual == expected) << budget << ", connections " << num_connections;
    }
  }
}

}  // namespace
}  // namespace swiglu::client
