// SPDX-License-Identifier: Apache-2.0
//
// Splits an address at its last colon. Other colons belong to an IPv6 address in brackets.
#include "server/base/address.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace swiglu::server {

std::optional<HostPort> ParseHostPort(absl::string_view address) {
  const size_t colon = address.rfind(':');
  if (colon == absl::string_view::npos || colon == 0) return std::nullopt;
  absl::string_view host = address.substr(0, colon);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  } else if (host.find_first_of(":[]") != absl::string_view::npos) {
    return std::nullopt;
  }
  const absl::string_view digits = address.substr(colon + 1);
  HostPort split{std::string(host)};
  if (!std::all_of(digits.begin(), digits.end(), absl::ascii_isdigit) ||
      !absl::SimpleAtoi(digits, &split.port) || split.port > 65535) {
    return std::nullopt;
  }
  return split;
}

std::string UnixSocketPath(absl::string_view address) {
  if (!absl::ConsumePrefix(&address, "unix:")) return "";
  // `unix:///path` is another way to write `unix:/path`.
  absl::ConsumePrefix(&address, "//");
  return std::string(address);
}

bool IsAddress(absl::string_view address) {
  return !UnixSocketPath(address).empty() || ParseHostPort(address).has_value();
}

std::string WithPort(absl::string_view address, int port) {
  return absl::StrCat(address.substr(0, address.rfind(':')), ":", port);
}

}  // namespace swiglu::server
