// SPDX-License-Identifier: Apache-2.0
//
// The part of HTTP that the metrics page needs. One pure function turns received bytes into the
// answer.
#pragma once

#include <functional>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/types/optional.h"

namespace swiglu::server {

// The most bytes that the head of a request may have.
inline constexpr size_t kMaxHttpHeadBytes = 8192;

// Makes the text of the page.
using Page = std::function<std::string()>;

// Returns the whole answer to the bytes that a connection has received, or nullopt if the head of
// the request is not complete yet. `GET` and `HEAD` of /metrics or `http://host/metrics` get 200
// with `page()`. Another path gets 404, another method 405, and a head above kMaxHttpHeadBytes 431.
// Text that is not HTTP gets 400, and an exception from `page` gives 500. The caller must close the
// connection after the answer.
absl::optional<std::string> AnswerHttp(absl::string_view received, const Page& page);

}  // namespace swiglu::server
