// SPDX-License-Identifier: Apache-2.0
//
// Addresses as people write them: `HOST:PORT` and `unix:/path`.
#pragma once

#include <optional>
#include <string>

#include "absl/strings/string_view.h"

namespace swiglu::server {

struct HostPort {
  std::string host;  // without the brackets of an IPv6 address
  int port = 0;
};

// Parses `HOST:PORT`. HOST is a name, an IPv4 address, or an IPv6 address in brackets. PORT is a
// number from 0 to 65535. Returns nullopt if `address` has another form.
std::optional<HostPort> ParseHostPort(absl::string_view address);

// The path in `unix:/path`, or "" if `address` has another form.
std::string UnixSocketPath(absl::string_view address);

// Whether `address` is `HOST:PORT` or `unix:/path`.
bool IsAddress(absl::string_view address);

// Returns `address`, which is `HOST:PORT`, with `port` as its port.
std::string WithPort(absl::string_view address, int port);

}  // namespace swiglu::server
