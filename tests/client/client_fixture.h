// SPDX-License-Identifier: Apache-2.0
//
// A client of a fake server, and tensors for it.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "gtest/gtest.h"
#include "swiglu/client.h"
#include "tests/client/bytes.h"
#include "tests/client/fake_server.h"
#include "tests/client/unnamed.h"

namespace swiglu::client {

inline std::unique_ptr<Client> Connect(const std::string& address, const Options& options = {}) {
  auto client = Client::Create(address, options);
  EXPECT_TRUE(client.ok()) << client.status();
  return std::make_unique<Client>(*std::move(client));
}

inline FakeReply Refusal(grpc::StatusCode code, const std::string& message) {
  FakeReply reply;
  reply.status = grpc::Status(code, message);
  return reply;
}

// The call hangs.
inline FakeReply NoReply() {
  FakeReply reply;
  reply.never = true;
  return reply;
}

class ClientTest : public ::testing::Test {
 protected:
  TensorView View(const std::string& bytes, Shape shape) {
    return {Dtype::kFp16, std::move(shape), AsBytes(bytes)};
  }

  const std::string dw_ = Pattern(24, 1), e_ = Pattern(24, 2), g_ = Pattern(24, 3);
  const Shape shape_ = {3, 4};
};

}  // namespace swiglu::client
