// SPDX-License-Identifier: Apache-2.0
//
// Five questions, one page.
#include <stdio.h>

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "absl/types/optional.h"
#include "client/cli/commands.h"
#include "client/cli/progress_bar.h"
#include "nlohmann/json.hpp"
#include "swiglu/client.h"

namespace swiglu::cli {
namespace {

using client::ModelCounters;
using Json = nlohmann::ordered_json;

struct Status {
  bool ready = false;
  client::ServerInfo server;
  std::string device;
  std::vector<client::ModelState> models;
  std::map<std::string, ModelCounters> counters;  // by model; zeros for those without
};

absl::StatusOr<Status> Ask(client::Client& client) {
  Status status;
  absl::StatusOr<bool> ready = client.ServerReady();
  if (!ready.ok()) return ready.status();
  status.ready = *ready;
  absl::StatusOr<client::ServerInfo> server = client.ServerMetadata();
  if (!server.ok()) return server.status();
  status.server = *std::move(server);
  absl::StatusOr<std::vector<client::ModelState>> models = client.ListModels();
  if (!models.ok()) return models.status();
  status.models = *std::move(models);
  absl::StatusOr<std::vector<ModelCounters>> counters = client.ModelStatistics("");
  if (!counters.ok()) return counters.status();
  for (ModelCounters& model : *counters) status.counters[model.name] = std::move(model);
  if (status.models.empty()) return status;
  // All models run on the same device.
  absl::StatusOr<client::ModelInfo> info = client.ModelMetadata(status.models.front().name);
  if (!info.ok()) return info.status();
  status.device = info->properties["device"];
  return status;
}

// The mean time of a request; nullopt if no request succeeded.
absl::optional<double> MeanMs(const ModelCounters& counters) {
  if (counters.num_succeeded == 0) return absl::nullopt;
  return absl::ToDoubleMilliseconds(counters.request_time) /
         static_cast<double>(counters.num_succeeded);
}

void PrintText(const std::string& address, Status& status) {
  absl::PrintF("server   %s\n", address);
  absl::PrintF("program  %s %s\n", status.server.name, status.server.version);
  absl::PrintF("ready    %s\n", status.ready ? "yes" : "no");
  absl::PrintF("device   %s\n\n", status.device.empty() ? "unknown" : status.device);
  // The names of the six models fit into 22 columns; those of MLPs may be longer.
  size_t width = 22;
  for (const client::ModelState& model : status.models) width = std::max(width, model.name.size());
  const int columns = static_cast<int>(width);
  absl::PrintF("%-*s %-8s %-12s %10s %10s %10s %10s\n", columns, "model", "version", "state",
               "requests", "failed", "batches", "mean ms");
  for (const client::ModelState& model : status.models) {
    const ModelCounters& counters = status.counters[model.name];
    const absl::optional<double> mean_ms = MeanMs(counters);
    absl::PrintF("%-*s %-8s %-12s %10d %10d %10d %10s\n", columns, model.name, model.version,
                 model.state, counters.num_requests, counters.num_failed, counters.num_batches,
                 mean_ms ? absl::StrFormat("%.3f", *mean_ms) : "-");
  }
}

void PrintJson(const std::string& address, Status& status) {
  Json json;
  json["server"] = address;
  json["name"] = status.server.name;
  json["version"] = status.server.version;
  json["ready"] = status.ready;
  json["device"] = status.device;
  json["extensions"] = status.server.extensions;
  json["models"] = Json::array();
  for (const client::ModelState& model : status.models) {
    const ModelCounters& counters = status.counters[model.name];
    const absl::optional<double> mean_ms = MeanMs(counters);
    json["models"].push_back({{"name", model.name},
                              {"version", model.version},
                              {"state", model.state},
                              {"requests", counters.num_requests},
                              {"failed", counters.num_failed},
                              {"batches", counters.num_batches},
                              {"mean_ms", mean_ms ? Json(*mean_ms) : Json(nullptr)}});
  }
  puts(json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace).c_str());
}

}  // namespace

ProgramEnd RunStatus(const CommandLine& command_line) {
  absl::StatusOr<client::Client> client =
      client::Client::Create(command_line.server, {.timeout = command_line.timeout});
  if (!client.ok()) return {ExitCode::kUsage, std::string(client.status().message())};
  absl::StatusOr<Status> status = WaitForServer([&] { return Ask(*client); });
  if (!status.ok()) return CallFailed(status.status(), *client);
  command_line.json ? PrintJson(command_line.server, *status)
                    : PrintText(command_line.server, *status);
  if (!status->ready) return {ExitCode::kUnreachable, "the server is not ready"};
  return {};
}

}  // namespace swiglu::cli
