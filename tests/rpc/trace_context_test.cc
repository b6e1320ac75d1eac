// SPDX-License-Identifier: Apache-2.0
//
// What is taken from a traceparent, and which ones are ignored. The rules are those of
// https://www.w3.org/TR/trace-context/#traceparent-header.
#include "server/service/trace_context.h"

#include <string>

#include "gtest/gtest.h"

namespace swiglu::server {
namespace {

constexpr char kTraceParent[] = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
constexpr char kTraceId[] = "4bf92f3577b34da6a3ce929d0e0e4736";

// A traceparent with `text` from the byte `at` on.
std::string TraceParentWith(size_t at, const std::string& text) {
  return std::string(kTraceParent).replace(at, text.size(), text);
}

TEST(TraceContextTest, FindsTheTrace) {
  EXPECT_EQ(TraceIdOf(kTraceParent), kTraceId);
  EXPECT_EQ(TraceIdOf(TraceParentWith(53, "00")), kTraceId);
  EXPECT_EQ(TraceIdOf(TraceParentWith(53, "ff")), kTraceId);
}

TEST(TraceContextTest, IgnoresEveryOtherLength) {
  const std::string whole = kTraceParent;
  for (size_t size = 0; size < whole.size(); ++size) {
    EXPECT_EQ(TraceIdOf(whole.substr(0, size)), "") << size;
  }
  EXPECT_EQ(TraceIdOf(whole + "-"), "");
  EXPECT_EQ(TraceIdOf(whole + "-00"), "");
  EXPECT_EQ(TraceIdOf(whole + "0"), "");
  EXPECT_EQ(TraceIdOf(" " + whole), "");
}

TEST(TraceContextTest, IgnoresEveryByteThatIsNotInItsPlace) {
  for (size_t at = 0; at < sizeof(kTraceParent) - 1; ++at) {
    for (const char* wrong : {"g", "A", "F", " ", "\"", "\n", "/", ":", "`"}) {
      EXPECT_EQ(TraceIdOf(TraceParentWith(at, wrong)), "") << at << wrong;
    }
    const bool is_dash = kTraceParent[at] == '-';
    EXPECT_EQ(TraceIdOf(TraceParentWith(at, is_dash ? "0" : "-")), "") << at;
  }
}

TEST(TraceContextTest, IgnoresIdsOfZeros) {
  EXPECT_EQ(TraceIdOf(TraceParentWith(3, std::string(32, '0'))), "");
  EXPECT_EQ(TraceIdOf(TraceParentWith(36, std::string(16, '0'))), "");
}

TEST(TraceContextTest, TakesTheKnownPartsOfLaterVersions) {
  const std::string later = TraceParentWith(0, "01");
  EXPECT_EQ(TraceIdOf(later), kTraceId);
  EXPECT_EQ(TraceIdOf(later + "-"), kTraceId);
  EXPECT_EQ(TraceIdOf(later + "-what-comes-later"), kTraceId);
  EXPECT_EQ(TraceIdOf(later + "0"), "");
  EXPECT_EQ(TraceIdOf(TraceParentWith(0, "fe")), kTraceId);
}

TEST(TraceContextTest, IgnoresTheVersionThatTheStandardForbids) {
  EXPECT_EQ(TraceIdOf(TraceParentWith(0, "ff")), "");
}

}  // namespace
}  // namespace swiglu::server
