// SPDX-License-Identifier: Apache-2.0
//
// The connection of one slot of a load: it notes when the slot's call ends, and which messages it
// took. So the latency of a call does not include the time until its caller looks at it, and the
// server is not asked for its times, as it is by a call with CallOptions::statistics.
#pragma once

#include <functional>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "client/bench/pace.h"
#include "swiglu/connection.h"
#include "swiglu/options.h"

namespace swiglu::bench {

// For one call at a time. Control calls go through.
class NotingConnection final : public client::Connection {
 public:
  // `inner` outlives the calls. `on_end` is called when a call that StartInfer began has ended, and
  // its future is ready. It must not block.
  NotingConnection(client::Connection* inner, std::function<void()> on_end)
      : inner_(*inner), on_end_(std::move(on_end)) {}

  void StartInfer(const client::Inference& inference, const client::CallContext& context,
                  Done done) override;
  client::CallResult Infer(const client::Inference& inference,
                           const client::CallContext& context) override;
  absl::StatusOr<std::string> Control(absl::string_view rpc, const std::string& request,
                                      const client::TimeLimit& limit) override {
    return inner_.Control(rpc, request, limit);
  }
  int num_servers() const override { return inner_.num_servers(); }
  bool has_one_server() const override { return inner_.has_one_server(); }

  // Forgets the call before.
  void Reset() {
    has_begun_ = false;
    statistics_ = {};
  }
  // Whether a call has come since. A call that the client refuses does not come.
  bool has_begun() const { return has_begun_; }
  // When it ended, and what it took. REQUIRES: it has ended.
  Clock::time_point end() const { return end_; }
  const client::CallStatistics& statistics() const { return statistics_; }

 private:
  void Note(const client::CallResult& result);

  client::Connection& inner_;
  const std::function<void()> on_end_;
  bool has_begun_ = false;
  Clock::time_point end_;
  client::CallStatistics statistics_;
};

}  // namespace swiglu::bench
