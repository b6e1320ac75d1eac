// SPDX-License-Identifier: Apache-2.0
//
// One question, one line for each model.
#include <stdio.h>

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "absl/types/optional.h"
#include "client/cli/commands.h"
#include "client/cli/progress_bar.h"
#include "nlohmann/json.hpp"
#include "server/base/shown_text.h"
#include "swiglu/client.h"

namespace swiglu::cli {
namespace {

using client::ModelCounters;
using Json = nlohmann::ordered_json;

// The name of an MLP may be long.
constexpr size_t kMaxModelBytes = 1024;

std::string ModelName(const ModelCounters& model) {
  return server::ShownText(model.name, kMaxModelBytes);
}

// The mean of a time of the requests that succeeded; nullopt if none did.
absl::optional<double> MeanOfMs(const ModelCounters& model, absl::Duration total) {
  if (model.num_succeeded == 0) return absl::nullopt;
  return absl::ToDoubleMilliseconds(total) / static_cast<double>(model.num_succeeded);
}

std::string ShownMean(const ModelCounters& model, absl::Duration total) {
  const absl::optional<double> mean_ms = MeanOfMs(model, total);
  return mean_ms ? absl::StrFormat("%.3f", *mean_ms) : "-";
}

void PrintTable(const std::vector<ModelCounters>& models) {
  size_t width = 22;
  for (const ModelCounters& model : models) width = std::max(width, ModelName(model).size());
  const int columns = static_cast<int>(width);
  absl::PrintF("%-*s %10s %10s %10s %10s %12s %12s %12s %11s %11s %11s\n", columns, "model",
               "requests", "batches", "succeeded", "failed", "request s", "queue s", "compute s",
               "request ms", "queue ms", "compute ms");
  for (const ModelCounters& model : models) {
    absl::PrintF("%-*s %10d %10d %10d %10d %12.3f %12.3f %12.3f %11s %11s %11s\n", columns,
                 ModelName(model), model.num_requests, model.num_batches, model.num_succeeded,
                 model.num_failed, absl::ToDoubleSeconds(model.request_time),
                 absl::ToDoubleSeconds(model.queue_time), absl::ToDoubleSeconds(model.compute_time),
                 ShownMean(model, model.request_time), ShownMean(model, model.queue_time),
                 ShownMean(model, model.compute_time));
  }
  absl::PrintF("\ns: of all requests that succeeded, together; ms: of one of them, on average\n");
}

Json TimeJson(const ModelCounters& model, absl::Duration total) {
  const absl::optional<double> mean_ms = MeanOfMs(model, total);
  return {{"total", absl::ToDoubleMilliseconds(total)},
          {"mean", mean_ms ? Json(*mean_ms) : Json(nullptr)}};
}

void PrintStatistics(const std::string& address, const std::vector<ModelCounters>& models) {
  Json json;
  json["server"] = address;
  json["models"] = Json::array();
  for (const ModelCounters& model : models) {
    json["models"].push_back({{"name", model.name},
                              {"version", model.version},
                              {"requests", model.num_requests},
                              {"batches", model.num_batches},
                              {"succeeded", model.num_succeeded},
                              {"failed", model.num_failed},
                              {"request_ms", TimeJson(model, model.request_time)},
                              {"queue_ms", TimeJson(model, model.queue_time)},
                              {"compute_ms", TimeJson(model, model.compute_time)}});
  }
  puts(json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace).c_str());
}

}  // namespace

ProgramEnd RunStatistics(const CommandLine& command_line) {
  absl::StatusOr<client::Client> client =
      client::Client::Create(command_line.server, {.timeout = command_line.timeout});
  if (!client.ok()) return {ExitCode::kUsage, std::string(client.status().message())};
  const absl::StatusOr<std::vector<ModelCounters>> models =
      WaitForServer([&] { return client->ModelStatistics(command_line.model); });
  if (!models.ok()) return CallFailed(models.status(), *client);
  command_line.json ? PrintStatistics(command_line.server, *models) : PrintTable(*models);
  return {};
}

}  // namespace swiglu::cli
