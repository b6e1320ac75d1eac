// SPDX-License-Identifier: Apache-2.0
//
// One transfer of libcurl, and its errors in the words of this program.
#include "client/bench/http_page.h"

#include <curl/curl.h>

#include <cstring>
#include <memory>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "server/base/address.h"

namespace swiglu::bench {
namespace {

constexpr size_t kMaxPageBytes = size_t{64} << 20;

using Transfer = std::unique_ptr<CURL, decltype(&curl_easy_cleanup)>;

// Keeps a part of the page. Returns another number than the part's size, which ends the transfer,
// if the page becomes too large.
size_t KeepPart(const char* part, size_t, size_t size, void* page) {
  auto* const text = static_cast<std::string*>(page);
  if (text->size() + size > kMaxPageBytes) return 0;
  text->append(part, size);
  return size;
}

// Sets everything but the page's address.
void SetUp(CURL* transfer, absl::Duration timeout, std::string* page) {
  curl_easy_setopt(transfer, CURLOPT_PROTOCOLS_STR, "http");
  curl_easy_setopt(transfer, CURLOPT_PROXY, "");
  curl_easy_setopt(transfer, CURLOPT_NOSIGNAL, 1L);  // other threads run
  curl_easy_setopt(transfer, CURLOPT_TIMEOUT_MS,
                   static_cast<long>(absl::ToInt64Milliseconds(timeout)));
  curl_easy_setopt(transfer, CURLOPT_WRITEFUNCTION, &KeepPart);
  curl_easy_setopt(transfer, CURLOPT_WRITEDATA, page);
}

// Why a transfer gave no page; empty if it gave one.
std::string Reason(CURL* transfer, CURLcode code, absl::Duration timeout) {
  long number = 0;
  switch (code) {
    case CURLE_OK:
      curl_easy_getinfo(transfer, CURLINFO_RESPONSE_CODE, &number);
      return number == 200 ? "" : absl::StrCat("the server answers with status ", number);
    case CURLE_COULDNT_CONNECT:
      curl_easy_getinfo(transfer, CURLINFO_OS_ERRNO, &number);
      return absl::StrCat("no connection: ", std::strerror(static_cast<int>(number)));
    case CURLE_OPERATION_TIMEDOUT:
      return absl::StrCat("no whole answer within ", absl::FormatDuration(timeout));
    case CURLE_WRITE_ERROR:
      return absl::StrCat("the answer has more than ", kMaxPageBytes, " bytes");
    default:
      return curl_easy_strerror(code);
  }
}

}  // namespace

absl::StatusOr<std::string> ReadHttpPage(const std::string& address, absl::string_view path,
                                         absl::Duration timeout) {
  const std::string url = absl::StrCat("http://", address, path);
  const auto failed = [&](absl::string_view what) {
    return absl::UnavailableError(absl::StrCat("no page ", url, ": ", what));
  };
  if (!server::ParseHostPort(address)) return failed("the address is not HOST:PORT");
  static const CURLcode kStarted = curl_global_init(CURL_GLOBAL_DEFAULT);
  const Transfer transfer(kStarted == CURLE_OK ? curl_easy_init() : nullptr, &curl_easy_cleanup);
  if (transfer == nullptr) return failed("libcurl cannot start");
  std::string page;
  SetUp(transfer.get(), timeout, &page);
  curl_easy_setopt(transfer.get(), CURLOPT_URL, url.c_str());
  const CURLcode code = curl_easy_perform(transfer.get());
  const std::string reason = Reason(transfer.get(), code, timeout);
  if (!reason.empty()) return failed(reason);
  return page;
}

}  // namespace swiglu::bench
