// SPDX-License-Identifier: Apache-2.0
//
// What is read from a metrics page and from a process.
#include "client/bench/server_usage.h"

#include <unistd.h>

#include "gtest/gtest.h"

namespace swiglu::bench {
namespace {

TEST(ServerUsageTest, ReadsTheNumbersOfAPage) {
  const ServerUsage usage = ParsePageUsage(
                                "# TYPE process_cpu_seconds_total counter\n"
                                "process_cpu_seconds_total 12.5\n"
                                "process_resident_memory_bytes 1.5e+06\n")
                                .value();
  EXPECT_EQ(usage.cpu_seconds, 12.5);
  EXPECT_EQ(usage.resident_bytes, 1'500'000);
  EXPECT_EQ(usage.resident_high_water_bytes, 0);
}

TEST(ServerUsageTest, RefusesAPageWithoutThem) {
  EXPECT_EQ(ParsePageUsage("process_cpu_seconds_total 12.5\n").status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ParsePageUsage("").status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(ServerUsageTest, FailsWithoutAPage) {
  // No server listens on port 1 of this machine.
  EXPECT_EQ(ReadPageUsage("127.0.0.1:1").status().code(), absl::StatusCode::kUnavailable);
}

TEST(ServerUsageTest, ReadsAProcess) {
  const ServerUsage usage = ReadProcessUsage(::getpid()).value();
  EXPECT_GE(usage.cpu_seconds, 0);
  EXPECT_GT(usage.resident_bytes, 1 << 20);
  EXPECT_GE(usage.resident_high_water_bytes, usage.resident_bytes);
}

TEST(ServerUsageTest, FailsWithoutAProcess) {
  // Beyond the most that Linux gives.
  EXPECT_EQ(ReadProcessUsage(1 << 23).status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace swiglu::bench
