// SPDX-License-Identifier: Apache-2.0
//
// The part of HTTP that a page needs, as one pure function from bytes to bytes.
#pragma once

#include <functional>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/types/optional.h"

namespace swiglu::server {

// The most bytes that a request's head may have.
inline constexpr size_t kMaxHttpHeadBytes = 8192;

// Makes the text of the page.
using Page = std::function<std::string()>;

// The whole answer to what a connection has received so far, or nullopt when the head of the
// request is not complete yet. `GET` and `HEAD` of /metrics, or of it in the absolute form
// (`http://host/metrics`), give 200 with `page()`. Another path gives 404, another method 405, a
// longer head 431, anything that is not HTTP 400, and an exception from `page` 500. Close the
// connection after the answer.
absl::optional<std::string> AnswerHttp(absl::string_view received, const Page& page);

}  // namespace swiglu::server
