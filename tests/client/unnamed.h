// SPDX-License-Identifier: Apache-2.0
//
// Errors without the server that they name, whose port differs from run to run.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "gtest/gtest.h"

namespace swiglu::client {

// `message` without ` (from 127.0.0.1:PORT)`, which must be there.
inline std::string Unnamed(const std::string& message) {
  const size_t begin = message.find(" (from 127.0.0.1:");
  EXPECT_NE(begin, std::string::npos) << message;
  if (begin == std::string::npos) return message;
  return message.substr(0, begin) + message.substr(message.find(')', begin) + 1);
}

inline absl::Status Unnamed(const absl::Status& status) {
  return absl::Status(status.code(), Unnamed(std::string(status.message())));
}

}  // namespace swiglu::client
