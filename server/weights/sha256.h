// SPDX-License-Identifier: Apache-2.0
//
// SHA-256 of bytes that come piece by piece. A thin layer over OpenSSL's libcrypto.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

// OpenSSL's EVP_MD_CTX.
struct evp_md_ctx_st;

namespace swiglu::server {

// Move-only. Not thread-safe. Every method returns INTERNAL if libcrypto fails.
class Sha256 {
 public:
  // The hash of no bytes so far.
  static absl::StatusOr<Sha256> Create();

  // Appends `bytes` to what is hashed.
  absl::Status Update(std::span<const std::byte> bytes);

  // The hash of all bytes so far, as 64 lower-case hexadecimal digits. Ends the use of this object.
  absl::StatusOr<std::string> Finish();

 private:
  struct Free {
    void operator()(evp_md_ctx_st* context) const;
  };

  Sha256() = default;

  std::unique_ptr<evp_md_ctx_st, Free> context_;
};

}  // namespace swiglu::server
