// SPDX-License-Identifier: Apache-2.0
//
// What a decorator is told about servers that do not exist.
#pragma once

#include <functional>
#include <utility>

#include "absl/time/time.h"
#include "client/server_choice.h"

namespace swiglu::client {

// One server that nothing is known against, unless the test says otherwise. Set it up before calls.
class FakeChoice final : public ServerChoice {
 public:
  int num_servers() const override { return num_servers_; }
  bool HasOther(const ServerSet& tried) override { return has_other_(tried); }
  absl::Duration TimeUntilOpen() override { return time_until_open_; }
  void AvoidIfSilent(int, absl::Time) override {}

  void set_num_servers(int num_servers) { num_servers_ = num_servers; }
  void SetHasOther(std::function<bool(const ServerSet&)> has_other) {
    has_other_ = std::move(has_other);
  }
  void set_time_until_open(absl::Duration time) { time_until_open_ = time; }

 private:
  int num_servers_ = 1;
  std::function<bool(const ServerSet&)> has_other_ = [](const ServerSet&) { return false; };
  absl::Duration time_until_open_ = absl::InfiniteDuration();
};

}  // namespace swiglu::client
