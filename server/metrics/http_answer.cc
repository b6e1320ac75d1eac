// SPDX-License-Identifier: Apache-2.0
//
// Parses the head of one request and writes the answer: RFC 9112, as far as a single page needs it.
#include "server/metrics/http_answer.h"

#include <algorithm>
#include <exception>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace swiglu::server {
namespace {

enum class Body { kSend, kOmit };

std::string Answer(absl::string_view status, absl::string_view extra_headers,
                   absl::string_view content, Body body) {
  return absl::StrCat("HTTP/1.1 ", status, "\r\n", extra_headers,
                      "Content-Length: ", content.size(), "\r\nConnection: close\r\n\r\n",
                      body == Body::kSend ? content : absl::string_view());
}

std::string Refusal(absl::string_view status, absl::string_view extra_headers = "") {
  return Answer(status, absl::StrCat("Content-Type: text/plain\r\n", extra_headers),
                absl::StrCat(status, "\n"), Body::kSend);
}

std::string PageAnswer(const Page& page, Body body) {
  std::string content;
  try {
    content = page();
  } catch (const std::exception&) {
    return Refusal("500 Internal Server Error");
  }
  return Answer("200 OK", "Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n", content,
                body);
}

// Where the last line of the head ends, or npos. A line may end with a bare newline.
size_t HeadEnd(absl::string_view received) {
  const size_t strict = received.find("\r\n\r\n");
  const size_t lenient = received.find("\n\n");
  return std::min(strict, lenient);
}

// The path of a request's target, without the query. The target may be `/metrics?a=b`, or have the
// absolute form `http://host:8002/metrics`, which every server must accept.
absl::string_view PathOf(absl::string_view target) {
  target = target.substr(0, target.find('?'));
  if (absl::StartsWithIgnoreCase(target, "http://")) {
    target.remove_prefix(absl::string_view("http://").size());
    target.remove_prefix(std::min(target.find('/'), target.size()));
  }
  return target;
}

}  // namespace

absl::optional<std::string> AnswerHttp(absl::string_view received, const Page& page) {
  const size_t head_end = HeadEnd(received);
  if (head_end == absl::string_view::npos && received.size() < kMaxHttpHeadBytes) {
    return absl::nullopt;
  }
  if (head_end >= kMaxHttpHeadBytes) return Refusal("431 Request Header Fields Too Large");

  absl::string_view line = received.substr(0, received.find('\n'));
  if (absl::EndsWith(line, "\r")) line.remove_suffix(1);
  const std::vector<absl::string_view> words = absl::StrSplit(line, ' ');
  if (words.size() != 3 || !absl::StartsWith(words[2], "HTTP/1.")) {
    return Refusal("400 Bad Request");
  }
  const absl::string_view method = words[0];
  if (PathOf(words[1]) != "/metrics") return Refusal("404 Not Found");
  if (method == "GET") return PageAnswer(page, Body::kSend);
  if (method == "HEAD") return PageAnswer(page, Body::kOmit);
  return Refusal("405 Method Not Allowed", "Allow: GET, HEAD\r\n");
}

}  // namespace swiglu::server
