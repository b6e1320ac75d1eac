// SPDX-License-Identifier: Apache-2.0
//
// How the connections to servers are protected, and how a client tells servers who it is.
#pragma once

namespace swiglu::client {

// One kind of protection. A small value. So far there is one kind, because the server has neither
// TLS nor authentication.
class Credentials {
 public:
  // The kinds of protection.
  enum class Kind { kInsecure };

  // No protection: connections are not encrypted, and neither side learns who the other one is. For
  // loopback, unix sockets, trusted networks, and connections that a proxy protects.
  static Credentials Insecure() { return Credentials(Kind::kInsecure); }

  // Which kind it is.
  Kind kind() const { return kind_; }

 private:
  explicit Credentials(Kind kind) : kind_(kind) {}

  Kind kind_;
};

}  // namespace swiglu::client
