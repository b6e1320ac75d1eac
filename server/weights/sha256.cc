// SPDX-License-Identifier: Apache-2.0
//
// Calls of libcrypto's EVP interface, which uses the processor's SHA instructions.
#include "server/weights/sha256.h"

#include <array>

#include "absl/strings/escaping.h"
#include "absl/strings/string_view.h"
#include "openssl/evp.h"

namespace swiglu::server {
namespace {

absl::Status HashFailed() { return absl::InternalError("libcrypto cannot compute SHA-256"); }

}  // namespace

void Sha256::Free::operator()(evp_md_ctx_st* context) const { EVP_MD_CTX_free(context); }

absl::StatusOr<Sha256> Sha256::Create() {
  Sha256 sha256;
  sha256.context_.reset(EVP_MD_CTX_new());
  if (sha256.context_ == nullptr ||
      EVP_DigestInit_ex(sha256.context_.get(), EVP_sha256(), nullptr) != 1) {
    return HashFailed();
  }
  return sha256;
}

absl::Status Sha256::Update(std::span<const std::byte> bytes) {
  if (EVP_DigestUpdate(context_.get(), bytes.data(), bytes.size()) != 1) return HashFailed();
  return absl::OkStatus();
}

absl::StatusOr<std::string> Sha256::Finish() {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest;
  unsigned int size = 0;
  if (EVP_DigestFinal_ex(context_.get(), digest.data(), &size) != 1) return HashFailed();
  return absl::BytesToHexString({reinterpret_cast<const char*>(digest.data()), size});
}

}  // namespace swiglu::server
