// SPDX-License-Identifier: Apache-2.0
//
// Example: a client of several servers that are alike, its options, and what calls tell about
// themselves. `several_servers HOST:PORT,HOST:PORT` ends with 0 if every answer is what a plain
// loop computes. One of the servers may be missing.
#include <cmath>
#include <cstdio>
#include <map>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "swiglu/client.h"
#include "swiglu/typed_view.h"

using swiglu::client::CallStatistics;
using swiglu::client::Client;
using swiglu::client::Elements;
using swiglu::client::View;

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: several_servers HOST:PORT,HOST:PORT\n");
    return 2;
  }
  swiglu::client::TuneProcess();
  // A message that a server loses or refuses goes to another one at once. Where none is left, the
  // client waits and tries again, within the timeout of the call.
  const auto client = Client::Create(argv[1], {.timeout = absl::Seconds(10),   // of each call
                                               .num_connections = 2,           // to each server
                                               .max_attempts = 6,              // of each message
                                               .retry_budget = 0.2,            // retries per call
                                               .coalesce_bytes = 16 * 1024});  // 0: join none
  if (!client.ok()) {
    std::fprintf(stderr, "%s\n", client.status().ToString().c_str());
    return 1;
  }

  std::vector<float> e(1000), g(e.size());
  std::map<std::string, int> num_answers;  // by server
  int num_messages = 0;
  absl::Duration compute_time;
  for (int k = 0; k < 100; ++k) {
    for (size_t i = 0; i < e.size(); ++i) {
      e[i] = 8 * std::sin(0.37f * static_cast<float>(k + static_cast<int>(i)));
      g[i] = 2 * std::cos(0.11f * static_cast<float>(i));
    }
    // The statistics are filled when the call returns, after an error too. The server's log has the
    // request id of a request that is not served.
    CallStatistics statistics;
    const auto h = client->Forward(
        View(e), View(g),
        {.request_id = "several_servers-" + std::to_string(k), .statistics = &statistics});
    if (!h.ok()) {
      std::fprintf(stderr, "call %d: %s\n", k, h.status().ToString().c_str());
      return 1;
    }
    ++num_answers[statistics.server];
    num_messages += statistics.num_messages;
    compute_time += statistics.compute_time.value_or(absl::ZeroDuration());

    const absl::Span<const float> values = Elements<float>(*h).value();
    for (size_t i = 0; i < e.size(); ++i) {
      const double expected = e[i] / (1 + std::exp(-double{e[i]})) * g[i];
      if (!(std::fabs(values[i] - expected) <= 1e-5 * std::fabs(expected))) {
        std::fprintf(stderr, "wrong: h[%zu] is %g, not %g\n", i, values[i], expected);
        return 1;
      }
    }
  }
  for (const auto& [server, count] : num_answers) {
    std::printf("%s: %d answers\n", server.c_str(), count);
  }
  std::printf("several_servers: 100 calls in %d messages are right; computed for %s each\n",
              num_messages, absl::FormatDuration(compute_time / 100).c_str());
  return 0;
}
