// SPDX-License-Identifier: Apache-2.0
//
// Lines and their fields. See the header.
#include "server/service/request_log.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/service/trace_context.h"

namespace swiglu::server {
namespace {

bool IsShown(char c) { return c > ' ' && c < 0x7F && c != '"' && c != '\\'; }

int64_t Microseconds(Clock::duration time) {
  return std::chrono::duration_cast<std::chrono::microseconds>(time).count();
}

}  // namespace

std::string CleanRequestId(absl::string_view id) {
  std::string clean(id.substr(0, kMaxLoggedIdBytes));
  std::replace_if(
      clean.begin(), clean.end(), [](char c) { return !IsShown(c); }, '_');
  if (id.size() > kMaxLoggedIdBytes) clean += "...";
  return clean;
}

void RequestLog::RequestFinished(const RequestRecord& record) {
  const absl::Status& status = record.status;
  if (!logging::Enabled(LevelOf(status.code()))) return;
  const int64_t num_left_out = limiters_[IndexOf(status.code())].Admit(record.ended, kInterval);
  if (num_left_out < 0) return;
  const std::string message =
      status.ok() ? "request served" : absl::StrCat("request not served: ", status.message());
  const std::string code = absl::StatusCodeToString(status.code());
  const std::string model(record.model == nullptr ? "" : record.model->name);
  const std::string id = CleanRequestId(record.id);
  std::string metadata_id, trace_id, peer;
  if (record.origin != nullptr) {
    metadata_id = CleanRequestId(record.origin->Metadata(kRequestIdMetadata));
    trace_id = std::string(TraceIdOf(record.origin->Metadata(kTraceParentMetadata)));
    if (options_.with_peers) peer = CleanRequestId(record.origin->DescribePeer());
  }
  std::vector<logging::Field> fields = {{"code", code}};
  if (!model.empty()) fields.push_back({"model", model});
  if (!id.empty()) fields.push_back({"id", id});
  if (!metadata_id.empty()) fields.push_back({"x_request_id", metadata_id});
  if (!trace_id.empty()) fields.push_back({"trace_id", trace_id});
  if (!peer.empty()) fields.push_back({"peer", peer});
  fields.push_back({"us", Microseconds(record.ended - record.started)});
  if (num_left_out > 0) fields.push_back({"left_out", num_left_out});
  logging::LogWithFields(LevelOf(status.code()), message, fields);
}

void RequestLog::Flush() {
  for (int i = 0; i < kNumCodes; ++i) {
    const int64_t num_left_out = limiters_[i].TakeSuppressed();
    if (num_left_out == 0) continue;
    const auto code = static_cast<absl::StatusCode>(i);
    const std::string name = absl::StatusCodeToString(code);
    const logging::Field fields[] = {{"code", name}, {"left_out", num_left_out}};
    logging::LogWithFields(LevelOf(code), "lines about requests left out", fields);
  }
}

logging::Level RequestLog::LevelOf(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kOk:
      return logging::Level::kDebug;
    case absl::StatusCode::kCancelled:
      return logging::Level::kInfo;
    case absl::StatusCode::kInternal:
    case absl::StatusCode::kUnknown:
    case absl::StatusCode::kDataLoss:
      return logging::Level::kError;
    default:
      return logging::Level::kWarning;
  }
}

int RequestLog::IndexOf(absl::StatusCode code) {
  const int index = static_cast<int>(code);
  return index >= 0 && index < kNumCodes ? index : static_cast<int>(absl::StatusCode::kUnknown);
}

}  // namespace swiglu::server
