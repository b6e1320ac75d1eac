// SPDX-License-Identifier: Apache-2.0
//
// Codes and sentences of most refusals. Each message says what was asked, the limit and the value.
#include "server/codec/errors.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/codec/error_parts.h"

namespace swiglu::server::errors {
namespace {

constexpr size_t kMaxShownDims = 16;

absl::Status TooLarge(absl::string_view message) {
  return Refused(absl::StatusCode::kResourceExhausted, Rejection::kTooLarge, message);
}

absl::Status Busy(Rejection reason, absl::string_view message) {
  return Refused(absl::StatusCode::kUnavailable, reason, message);
}

std::string SizedShape(absl::Span<const int64_t> shape, Dtype dtype, int64_t needed_bytes) {
  return absl::StrCat("shape ", FormatShape(shape), " of ", DatatypeName(dtype), " needs ",
                      needed_bytes);
}

}  // namespace

std::string Echo(absl::string_view text) {
  size_t end = std::min(text.size(), kMaxQuotedBytes);
  // Not in the middle of a character.
  while (end > 0 && end < text.size() && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) {
    --end;
  }
  return std::string(text.substr(0, end));
}

std::string FormatShape(absl::Span<const int64_t> shape) {
  if (shape.size() <= kMaxShownDims) return absl::StrCat("[", absl::StrJoin(shape, ","), "]");
  return absl::StrCat("[", absl::StrJoin(shape.subspan(0, kMaxShownDims), ","), ",... (",
                      shape.size(), " dims)]");
}

absl::Status UnknownModel(absl::string_view name, const ModelRegistry& models) {
  const auto listed = models.models().subspan(0, kMaxListedModels);
  const auto append_name = [](std::string* out, const Model* model) {
    absl::StrAppend(out, model->name);
  };
  return absl::NotFoundError(absl::StrCat("unknown model ", Quote(name), ": this server has ",
                                          absl::StrJoin(listed, ", ", append_name),
                                          MoreThan(listed, models.models())));
}

absl::Status WrongVersion(const Model& model, absl::string_view version) {
  return absl::NotFoundError(
      absl::StrCat("model ", Quote(model.name), " has version 1, not ", Cut(version)));
}

absl::Status VersionNotInteger(absl::string_view version) {
  return Invalid(absl::StrCat("model version ", Quote(version), " is not an integer"));
}

absl::Status Malformed(absl::string_view message_type, absl::string_view where) {
  return Invalid(absl::StrCat("malformed ", message_type, ": ", where));
}

absl::Status NoWholeMessage(absl::string_view message_type) {
  return Malformed(message_type, "no whole message came, or its flag byte is neither 0 nor 1");
}

absl::Status EmptyRequest() {
  return Malformed("ModelInferRequest",
                   "the message is empty, or its flag byte is neither 0 nor 1");
}

absl::Status MessageTooLarge(absl::string_view message_type, int64_t bytes, int64_t max_bytes) {
  return absl::ResourceExhaustedError(absl::StrCat(
      message_type, " of ", bytes, " bytes exceeds the ", max_bytes, " that it may have"));
}

absl::Status EnvelopeTooLarge(int64_t max_envelope_bytes) {
  return TooLarge(
      absl::StrCat("request has more than ", max_envelope_bytes, " bytes beside its tensors"));
}

absl::Status UnsupportedParameter(absl::string_view name) {
  return Invalid(absl::StrCat("parameter ", Quote(name), " is not supported"));
}

absl::Status BadTimeout(absl::string_view found) {
  return Invalid(absl::StrCat("parameter 'timeout' takes an int64 of microseconds, 0 or more; ",
                              "this one is ", found));
}

absl::Status BadPriority(absl::string_view found) {
  return Invalid(
      absl::StrCat("parameter 'priority' takes an integer, 0 or more; ", "this one is ", found));
}

absl::Status MissingInput(absl::string_view input) {
  return Invalid(absl::StrCat("input ", Quote(input), " is missing"));
}

absl::Status UnknownInput(absl::string_view input, const Model& model) {
  return Invalid(absl::StrCat("unknown input ", Quote(input), ": ", Quote(model.name), " takes ",
                              absl::StrJoin(model.inputs, ", ")));
}

absl::Status RepeatedInput(absl::string_view input) {
  return Invalid(absl::StrCat("input ", Quote(input), " is given twice"));
}

absl::Status UnknownOutput(absl::string_view output, const Model& model) {
  std::vector<absl::string_view> names;
  for (int k = 0; k < model.num_outputs(); ++k) names.push_back(model.OutputName(k));
  return Invalid(absl::StrCat("unknown output ", Quote(output), ": ", Quote(model.name), " gives ",
                              absl::StrJoin(names, ", ")));
}

absl::Status RepeatedOutput(absl::string_view output) {
  return Invalid(absl::StrCat("output ", Quote(output), " is given twice"));
}

absl::Status WrongDatatype(absl::string_view input, absl::string_view datatype,
                           const Model& model) {
  return Invalid(absl::StrCat("input ", Quote(input), " is ", Cut(datatype), "; ",
                              Quote(model.name), " takes ", DatatypeName(model.dtype)));
}

absl::Status NegativeDimension(absl::string_view input, absl::Span<const int64_t> shape) {
  return Invalid(
      absl::StrCat("shape of ", Quote(input), " has a negative dimension: ", FormatShape(shape)));
}

absl::Status ShapeTooLarge(absl::string_view input, absl::Span<const int64_t> shape) {
  return Invalid(absl::StrCat("shape of ", Quote(input), " is too large: ", FormatShape(shape)));
}

absl::Status WrongLastDimension(absl::string_view input, absl::Span<const int64_t> shape,
                                const Model& model) {
  return Invalid(absl::StrCat("last dimension of ", Quote(input), " is ",
                              shape.empty() ? "missing" : absl::StrCat(shape.back()), "; ",
                              Quote(model.name), " takes ", model.row_elements));
}

absl::Status ShapesDiffer(absl::string_view input, absl::Span<const int64_t> shape,
                          absl::string_view first, absl::Span<const int64_t> first_shape) {
  return Invalid(absl::StrCat("shape of ", Quote(input), " is ", FormatShape(shape), "; ",
                              Quote(first), " has ", FormatShape(first_shape)));
}

absl::Status WrongSize(absl::string_view input, int64_t found_bytes,
                       absl::Span<const int64_t> shape, Dtype dtype, int64_t needed_bytes) {
  return Invalid(absl::StrCat("input ", Quote(input), " has ", found_bytes, " bytes; ",
                              SizedShape(shape, dtype, needed_bytes)));
}

absl::Status NoData(absl::string_view input, absl::Span<const int64_t> shape, Dtype dtype,
                    int64_t needed_bytes) {
  return Invalid(absl::StrCat("input ", Quote(input), " has no data; ",
                              SizedShape(shape, dtype, needed_bytes), " bytes"));
}

absl::Status TooManyRawEntries(int found, absl::Span<const absl::string_view> inputs) {
  if (inputs.empty()) {
    return Invalid(absl::StrCat("raw_input_contents has ", found,
                                " entries; every input lies in a shared memory region"));
  }
  return Invalid(absl::StrCat("raw_input_contents has ", found, " entries; the ", inputs.size(),
                              " inputs ", absl::StrJoin(inputs, ", "), " take one each"));
}

absl::Status BothKindsOfData(absl::string_view input) {
  return Invalid(absl::StrCat("input ", Quote(input),
                              " has typed contents, and the request has raw_input_contents: give "
                              "one kind of data"));
}

absl::Status TypedNotAccepted(absl::string_view input, Dtype dtype) {
  return Invalid(absl::StrCat("input ", Quote(input), " has typed contents; ", DatatypeName(dtype),
                              " takes raw_input_contents"));
}

absl::Status WrongTypedField(absl::string_view input, absl::string_view field) {
  return Invalid(
      absl::StrCat("input ", Quote(input), " has ", field, "; FP32 takes fp32_contents"));
}

absl::Status RequestTooLarge(int64_t bytes, int64_t max_request_bytes) {
  return TooLarge(
      absl::StrCat("request of ", bytes, " bytes exceeds max_request_bytes ", max_request_bytes));
}

absl::Status ResponseTooLarge(int64_t bytes, int64_t max_request_bytes) {
  return TooLarge(
      absl::StrCat("response of ", bytes, " bytes exceeds max_request_bytes ", max_request_bytes));
}

absl::Status GradientsNeedRegions(const absl::Status& refusal) {
  return TooLarge(absl::StrCat(refusal.message(),
                               "; gradients in shared memory regions need no room in messages"));
}

absl::Status MetadataTooLarge(int64_t bytes, int64_t max_metadata_bytes) {
  return TooLarge(absl::StrCat("metadata of ", bytes, " bytes exceeds max_metadata_bytes ",
                               max_metadata_bytes));
}

absl::Status ExceedsBudget(int64_t bytes, int64_t memory_budget_bytes) {
  return TooLarge(absl::StrCat("request needs ", bytes,
                               " bytes at once; half of the memory budget of ", memory_budget_bytes,
                               " bytes is the most"));
}

absl::Status RequestOutgrows(int64_t max_request_bytes) {
  return TooLarge(absl::StrCat("request of more than ", max_request_bytes,
                               " bytes exceeds max_request_bytes ", max_request_bytes));
}

absl::Status MessageOutgrows(int64_t max_bytes) {
  return absl::ResourceExhaustedError(
      absl::StrCat("message exceeds the ", max_bytes, " bytes that it may have"));
}

absl::Status UnannouncedTooLarge(int64_t max_bytes, int64_t memory_budget_bytes) {
  return TooLarge(absl::StrCat(
      "request has more than ", max_bytes, " bytes; without swiglu-request-bytes three eighths of ",
      "the memory budget of ", memory_budget_bytes, " bytes are the most"));
}

absl::Status QueueFull(int64_t max_queued_requests) {
  return Busy(Rejection::kQueueFull,
              absl::StrCat("queue is full: ", max_queued_requests, " requests"));
}

absl::Status TooManyCalls(int64_t max_calls) {
  return Busy(Rejection::kQueueFull, absl::StrCat(max_calls, " calls are open, the most at once"));
}

absl::Status BudgetInUse(int64_t memory_budget_bytes) {
  return Busy(Rejection::kBudget,
              absl::StrCat("memory budget of ", memory_budget_bytes, " bytes is in use"));
}

absl::Status ShareInUse(int64_t memory_budget_bytes) {
  return Busy(Rejection::kBudget, absl::StrCat("this connection's share of the memory budget of ",
                                               memory_budget_bytes, " bytes is in use"));
}

absl::Status BesideRefused() {
  return Busy(Rejection::kBudget,
              "this connection still brings messages that were refused; try again when they are "
              "through");
}

absl::Status Draining() { return Busy(Rejection::kDraining, "server is draining"); }

absl::Status WeightsNotLoaded(const Model& model) {
  return Busy(Rejection::kLoading,
              absl::StrCat("the weights of ", Quote(model.name), " are still being loaded"));
}

absl::Status LateMessage(absl::Duration limit) {
  return absl::DeadlineExceededError(
      absl::StrCat("the message did not come within ", absl::FormatDuration(limit)));
}

absl::Status Expired(absl::string_view when) {
  return absl::DeadlineExceededError(absl::StrCat("deadline passed ", when));
}

absl::Status Cancelled(absl::string_view when) {
  return absl::CancelledError(absl::StrCat("cancelled by the caller ", when));
}

absl::Status UnknownMethod(absl::string_view path) {
  return absl::UnimplementedError(absl::StrCat("unknown method ", Quote(path)));
}

absl::Status MethodNotOffered(absl::string_view reason) { return absl::UnimplementedError(reason); }

absl::Status UnknownHealthService(absl::string_view service) {
  return absl::NotFoundError(absl::StrCat(
      "unknown service ", Quote(service),
      ": the server's health is known as '', inference.GRPCInferenceService and liveness"));
}

absl::Status NotReflected(absl::string_view asked) {
  return absl::NotFoundError(absl::StrCat("this server's services know no ", Quote(asked)));
}

}  // namespace swiglu::server::errors
