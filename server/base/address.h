// SPDX-License-Identifier: Apache-2.0
//
// Addresses as people write them: `HOST:PORT` and `unix:/path`.
#pragma once

#include <optional>
#include <string>

#include "absl/strings/string_view.h"

namespace swiglu::server {

struct HostPort {
  std::string host;  // of an IPv6 address without its brackets
  int port = 0;
};

// Takes `HOST:PORT` apart: HOST is a name, an IPv4 address or an IPv6 address in brackets, PORT a
// number from 0 to 65535. nullopt if `address` is not that.
std::optional<HostPort> ParseHostPort(absl::string_view address);

// The path in `unix:/path`, or "" if `address` is not that.
std::string UnixSocketPath(absl::string_view address);

// Whether `address` is `HOST:PORT` or `unix:/path`.
bool IsAddress(absl::string_view address);

// `address`, which is `HOST:PORT`, with another port.
std::string WithPort(absl::string_view address, int port);

}  // namespace swiglu::server
