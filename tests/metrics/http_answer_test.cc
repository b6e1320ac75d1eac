// SPDX-License-Identifier: Apache-2.0
//
// HTTP without sockets: from received bytes to the bytes of the answer.
#include "server/metrics/http_answer.h"

#include <stdexcept>
#include <string>

#include "gtest/gtest.h"

namespace swiglu::server {
namespace {

std::string Content() { return "swiglu_ready 1\n"; }

// The first line of the answer, or "more" when there is none yet.
std::string StatusOf(absl::string_view received, const Page& page = Content) {
  const absl::optional<std::string> answer = AnswerHttp(received, page);
  return answer.has_value() ? answer->substr(0, answer->find('\r')) : "more";
}

TEST(HttpAnswerTest, GetGivesThePage) {
  EXPECT_EQ(AnswerHttp("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", Content),
            "HTTP/1.1 200 OK\r\n"
            "Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n"
            "Content-Length: 15\r\n"
            "Connection: close\r\n"
            "\r\n"
            "swiglu_ready 1\n");
}

TEST(HttpAnswerTest, HeadGivesTheHeadersAlone) {
  EXPECT_EQ(AnswerHttp("HEAD /metrics HTTP/1.1\r\n\r\n", Content),
            "HTTP/1.1 200 OK\r\n"
            "Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n"
            "Content-Length: 15\r\n"
            "Connection: close\r\n"
            "\r\n");
}

TEST(HttpAnswerTest, QueryAndBareNewlinesAreTolerated) {
  EXPECT_EQ(StatusOf("GET /metrics?a=b HTTP/1.0\n\n"), "HTTP/1.1 200 OK");
}

TEST(HttpAnswerTest, AbsoluteFormIsTaken) {
  for (const char* target : {"http://localhost:8002/metrics", "http://[::1]:8002/metrics?a=/b",
                             "HTTP://x/metrics", "http:///metrics"}) {
    EXPECT_EQ(StatusOf("GET " + std::string(target) + " HTTP/1.1\r\n\r\n"), "HTTP/1.1 200 OK")
        << target;
  }
}

TEST(HttpAnswerTest, IncompleteHeadWaitsForMore) {
  const std::string request = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";
  for (size_t length = 0; length < request.size(); ++length) {
    EXPECT_EQ(StatusOf(request.substr(0, length)), "more") << length;
  }
}

TEST(HttpAnswerTest, OtherPathsAreNotFound) {
  for (const char* path :
       {"/", "/metrics/", "/metricsx", "/../metrics", "*", "http://x", "http://x/",
        "http://x/metrics/", "http://x?/metrics", "https://x/metrics", "x/metrics"}) {
    EXPECT_EQ(StatusOf("GET " + std::string(path) + " HTTP/1.1\r\n\r\n"), "HTTP/1.1 404 Not Found");
  }
}

TEST(HttpAnswerTest, OtherMethodsAreNotAllowed) {
  const absl::optional<std::string> answer =
      AnswerHttp("POST /metrics HTTP/1.1\r\nContent-Length: 1\r\n\r\nx", Content);
  ASSERT_TRUE(answer.has_value());
  EXPECT_NE(answer->find("405 Method Not Allowed\r\n"), std::string::npos);
  EXPECT_NE(answer->find("\r\nAllow: GET, HEAD\r\n"), std::string::npos);
}

TEST(HttpAnswerTest, WhatIsNotHttpIsRefused) {
  for (const std::string start :
       {"", "hello", "GET /metrics", "GET  /metrics HTTP/1.1", "GET /metrics HTTP/2.0",
        "GET /metrics HTTP/1.1 x", "PRI * HTTP/2.0", "\x16\x03\x01\x02"}) {
    EXPECT_EQ(StatusOf(start + "\r\n\r\n"), "HTTP/1.1 400 Bad Request") << start;
  }
}

TEST(HttpAnswerTest, LongHeadIsRefused) {
  const std::string start = "GET /metrics HTTP/1.1\r\nX: ";
  EXPECT_EQ(StatusOf(start + std::string(kMaxHttpHeadBytes - start.size() - 1, 'x')), "more");
  EXPECT_EQ(StatusOf(start + std::string(kMaxHttpHeadBytes - start.size(), 'x')),
            "HTTP/1.1 431 Request Header Fields Too Large");
  const std::string longest = start + std::string(kMaxHttpHeadBytes - start.size() - 1, 'x');
  EXPECT_EQ(StatusOf(longest + "\r\n\r\n"), "HTTP/1.1 200 OK");
  EXPECT_EQ(StatusOf(longest + "x\r\n\r\n"), "HTTP/1.1 431 Request Header Fields Too Large");
  EXPECT_EQ(StatusOf(start + std::string(kMaxHttpHeadBytes, 'x') + "\r\n\r\n"),
            "HTTP/1.1 431 Request Header Fields Too Large");
}

TEST(HttpAnswerTest, ExceptionOfThePageIsAnError) {
  EXPECT_EQ(StatusOf("GET /metrics HTTP/1.1\r\n\r\n",
                     []() -> std::string { throw std::runtime_error("no"); }),
            "HTTP/1.1 500 Internal Server Error");
}

}  // namespace
}  // namespace swiglu::server
