// SPDX-License-Identifier: Apache-2.0
//
// Waits for the server, runs each load, measures CPU use over its window, and prints.
#include "client/bench/load_command.h"

#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/bench/load.h"
#include "client/bench/load_progress.h"
#include "client/bench/report.h"
#include "client/bench/result_files.h"
#include "client/bench/server_usage.h"
#include "client/bench/shared_tensors.h"
#include "client/bench/sweep.h"
#include "client/cli/progress_bar.h"
#include "client/cli/signal_watch.h"
#include "client/server_address.h"
#include "swiglu/client.h"

namespace swiglu::bench {
namespace {

using cli::ExitCode;
using cli::ProgramEnd;

constexpr absl::Duration kReadyPollInterval = absl::Milliseconds(50);

// SIGINT and SIGTERM within this time of the first one count as the same order.
constexpr auto kSameOrder = std::chrono::seconds(1);

double ClientCpuSeconds() {
  rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

// Asks the server again and again, until it is ready or the deadline has passed.
ProgramEnd WaitReady(client::Client& client, absl::Time deadline) {
  ProgramEnd end = cli::CheckReady(client);
  while (end.code == ExitCode::kUnreachable && absl::Now() < deadline) {
    absl::SleepFor(kReadyPollInterval);
    end = cli::CheckReady(client);
  }
  return end;
}

// The same for each of several servers. REQUIRES: a client takes `servers`.
ProgramEnd WaitAllReady(const std::string& servers, absl::Duration patience) {
  const cli::ProgressBar bar("waiting for the server");
  const absl::Time deadline = absl::Now() + patience;
  const std::vector<std::string> addresses = client::SplitAddresses(servers).value();
  for (const std::string& address : addresses) {
    absl::StatusOr<client::Client> client = client::Client::Create(address, {.num_connections = 1});
    if (!client.ok()) return cli::BadInput(client.status());
    ProgramEnd end = WaitReady(*client, deadline);
    if (end.code == ExitCode::kDone) continue;
    if (addresses.size() > 1) end.error = absl::StrCat(address, ": ", end.error);
    return end;
  }
  return {};
}

// What processes have used, ours and the server's.
struct Used {
  double client_cpu_seconds = 0;
  absl::optional<ServerUsage> server;  // none unless the command line says where to read it
};

absl::StatusOr<Used> ReadUsage(const CommandLine& command) {
  Used used{ClientCpuSeconds(), absl::nullopt};
  if (command.server_pid == 0 && command.metrics.empty()) return used;
  const absl::StatusOr<ServerUsage> server = command.server_pid > 0
                                                 ? ReadProcessUsage(command.server_pid)
                                                 : ReadPageUsage(command.metrics);
  if (!server.ok()) return server.status();
  used.server = *server;
  return used;
}

// Shared memory for the tensors; none if messages carry them.
absl::StatusOr<std::unique_ptr<SharedTensors>> Share(const LoadOptions& load,
                                                     const std::vector<RequestData>& data,
                                                     const client::Client& client) {
  if (load.shared_memory == SharedMemory::kNone) return nullptr;
  const auto largest =
      std::max_element(data.begin(), data.end(), [](const RequestData& a, const RequestData& b) {
        return a.num_elements() < b.num_elements();
      });
  return SharedTensors::Create(client, load.shared_memory, load.num_in_flight, *largest);
}

absl::StatusOr<std::unique_ptr<Load>> Connect(ClientKind client, const LoadOptions& load,
                                              const std::vector<RequestData>* data) {
  return client == ClientKind::kRaw ? ConnectRawLoad(load, data) : CreateLibraryLoad(load, data);
}

// Sets the model of `load` to the MLP that `choice` names, as the server knows it, and sets the
// sizes of its requests. `model` keeps the MLP.
ProgramEnd AskForModel(client::Client& client, const MlpChoice& choice, CommandLine* command,
                       Model* model) {
  absl::StatusOr<Model> mlp = AskForMlp(client, choice);
  if (!mlp.ok()) return cli::CallFailed(mlp.status(), client);
  *model = *std::move(mlp);
  LoadOptions& load = command->load;
  load.model = model;
  absl::StatusOr<std::vector<WeightedSize>> sizes = TokensToBytes(*model, load.tokens);
  absl::Status status = sizes.status();
  if (sizes.ok()) {
    load.request_bytes = *std::move(sizes);
    status = CheckMessages(command->client, load);
  }
  if (!status.ok()) return {ExitCode::kUsage, std::string(status.message())};
  return {};
}

// Notes in the report how many results of the load were found right. Fails with the error of the
// first wrong one.
absl::Status CheckResults(const LoadOptions& load, client::Client& client, Report* report) {
  const cli::ProgressBar bar("checking the results");
  const absl::StatusOr<int64_t> num_checked = load.shared_tensors != nullptr
                                                  ? load.shared_tensors->Check(client)
                                                  : load.first_answers->Result();
  if (!num_checked.ok()) return num_checked.status();
  report->num_checked = *num_checked;
  if (load.first_answers == nullptr) return absl::OkStatus();
  const absl::StatusOr<int64_t> num_computed = load.first_answers->CheckKept();
  if (!num_computed.ok()) return num_computed.status();
  report->num_computed = *num_computed;
  return absl::OkStatus();
}

// Runs the load to its end. Fails only if the server's usage cannot be read.
absl::StatusOr<Report> Measure(const CommandLine& command, Load& load, StopOrder& stop) {
  Pace pace(command.pace, Clock::now());
  const cli::ProgressBar bar([&pace] { return ProgressOf(pace, Clock::now()); });
  stop.SetLoad(&pace);
  load.Start(&pace);
  pace.WaitUntil(pace.begin());
  const absl::StatusOr<Used> before = ReadUsage(command);
  if (!pace.ends_by_number()) pace.WaitUntil(pace.end());
  absl::StatusOr<Used> after = ReadUsage(command);
  Tally tally = load.Finish();
  stop.SetLoad(nullptr);
  if (pace.ends_by_number()) after = ReadUsage(command);
  if (!before.ok()) return before.status();
  if (!after.ok()) return after.status();

  const Clock::duration elapsed = MeasuredTime(pace, tally);
  Report report{
      command,           std::move(tally),   elapsed,
      pace.NumNotSent(), pace.was_stopped(), after->client_cpu_seconds - before->client_cpu_seconds,
      after->server};
  if (report.server) report.server->cpu_seconds -= before->server->cpu_seconds;
  return report;
}

// Runs a load, from its connections to the check of its results, and appends its report.
ProgramEnd RunOne(const CommandLine& command, client::Client& client, StopOrder& stop,
                  std::vector<Report>* reports) {
  auto bar = std::make_unique<cli::ProgressBar>("preparing the requests");
  const std::vector<RequestData> data = MakeRequestData(command.load);
  const absl::StatusOr<std::unique_ptr<SharedTensors>> shared = Share(command.load, data, client);
  if (!shared.ok()) return cli::CallFailed(shared.status(), client);
  LoadOptions options = command.load;
  options.shared_tensors = shared->get();
  FirstAnswers first_answers(options.model, data.size());
  if (command.check && options.shared_tensors == nullptr) options.first_answers = &first_answers;
  // The raw client's answers are whole messages, and only the server knows the weights of an MLP.
  if (command.client == ClientKind::kLibrary && !command.mlp) first_answers.KeepAnswersTo(&data);
  absl::StatusOr<std::unique_ptr<Load>> load = Connect(command.client, options, &data);
  if (!load.ok()) return cli::CallFailed(load.status(), client);
  bar.reset();
  absl::StatusOr<Report> report = Measure(command, **load, stop);
  if (!report.ok()) return cli::BadInput(report.status());
  if (command.check) {
    const absl::Status status = CheckResults(options, client, &*report);
    if (!status.ok()) return cli::CallFailed(status, client);
  }
  reports->push_back(*std::move(report));
  return {};
}

// The loads that `command` asks for: one, or one for each size of a sweep.
std::vector<CommandLine> LoadsOf(const CommandLine& command) {
  if (command.sweep.empty()) return {command};
  std::vector<CommandLine> loads(command.sweep.size(), command);
  for (size_t k = 0; k < loads.size(); ++k) loads[k].load.request_bytes = {{command.sweep[k]}};
  return loads;
}

void Print(const CommandLine& command, const std::vector<Report>& reports) {
  std::string text;
  if (command.json) {
    text = command.sweep.empty() ? FormatJson(reports.front()) : FormatSweepJson(reports);
    text += "\n";
  } else {
    text = command.sweep.empty() ? FormatText(reports.front()) : FormatSweepText(command, reports);
  }
  fputs(text.c_str(), stdout);
}

// How the program ends after its loads: with an error if a load had no answer but errors.
ProgramEnd EndOf(const std::vector<Report>& reports, client::Client& client) {
  for (const Report& report : reports) {
    const bool has_success = report.tally.Total().latency.count() > 0;
    if (report.tally.NumFailed() > 0 && !has_success) {
      return cli::CallFailed(report.tally.example(), client);
    }
  }
  return {};
}

}  // namespace

void StopOrder::Take(int signal) {
  absl::MutexLock lock(&mutex_);
  const Clock::time_point now = Clock::now();
  const bool is_stop = signal == SIGINT || signal == SIGTERM;
  // A repeated order has no effect, even if the load has ended since the first signal.
  if (is_stop && first_ && now - *first_ < kSameOrder) return;
  if (!is_stop || first_ || pace_ == nullptr) cli::EndBy(signal);
  first_ = now;
  pace_->Stop();
}

void StopOrder::SetLoad(Pace* pace) {
  absl::MutexLock lock(&mutex_);
  pace_ = pace;
}

ProgramEnd RunLoad(const CommandLine& given, StopOrder& stop) {
  CommandLine command = given;
  absl::Status status = CheckResultFiles(command);
  if (!status.ok()) return cli::BadInput(status);
  absl::StatusOr<client::Client> client =
      client::Client::Create(command.load.server, {.num_connections = 1});
  if (!client.ok()) return {ExitCode::kUsage, std::string(client.status().message())};
  ProgramEnd end = WaitAllReady(command.load.server, command.wait_ready);
  if (end.code != ExitCode::kDone) return end;

  Model mlp;
  if (command.mlp) {
    end = AskForModel(*client, *command.mlp, &command, &mlp);
    if (end.code != ExitCode::kDone) return end;
  }
  std::vector<Report> reports;
  for (const CommandLine& load : LoadsOf(command)) {
    end = RunOne(load, *client, stop, &reports);
    if (end.code != ExitCode::kDone || reports.back().was_stopped) break;
  }
  if (reports.empty()) return end;
  Print(command, reports);
  if (end.code != ExitCode::kDone) return end;
  status = WriteResultFiles(command, reports);
  return status.ok() ? EndOf(reports, *client) : cli::BadInput(status);
}

}  // namespace swiglu::bench
