// SPDX-License-Identifier: Apache-2.0
//
// The refusals of calls: their codes and their words. Those about regions are in region_errors.h,
// and those about the loading of weights in mlp_errors.h. Text from a caller is cut to a bounded
// length, and its hidden characters are escaped, before an error repeats it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "server/core/model.h"
#include "server/core/model_registry.h"
#include "server/core/observer.h"

namespace swiglu::server::errors {

// The reason under which a request that ended with `status` is counted as refused. nullopt: the
// request is not counted as refused, because the server is at fault.
std::optional<Rejection> RejectionOf(const absl::Status& status);

// At most the first 128 bytes of `text`, a caller's id or name. An error answer repeats no more of
// it.
std::string Echo(absl::string_view text);

// The shape as text, such as `[3,4]`. A long shape is cut.
std::string FormatShape(absl::Span<const int64_t> shape);

// Models and versions.
// Lists the first of the models that there are.
absl::Status UnknownModel(absl::string_view name, const ModelRegistry& models);
absl::Status WrongVersion(const Model& model, absl::string_view version);
absl::Status VersionNotInteger(absl::string_view version);

// The message and its parameters.
absl::Status Malformed(absl::string_view message_type, absl::string_view where);
// The caller has sent nothing, or only a part of a message: gRPC does not tell which.
absl::Status NoWholeMessage(absl::string_view message_type);
// gRPC presents a message with an unknown flag byte as an empty one, so such a message gets this
// error, too.
absl::Status EmptyRequest();
// For a message of a method without tensors.
absl::Status MessageTooLarge(absl::string_view message_type, int64_t bytes, int64_t max_bytes);
absl::Status EnvelopeTooLarge(int64_t max_envelope_bytes);
absl::Status UnsupportedParameter(absl::string_view name);
absl::Status BadTimeout(absl::string_view found);
absl::Status BadPriority(absl::string_view found);

// Inputs and outputs of a request.
absl::Status MissingInput(absl::string_view input);
absl::Status UnknownInput(absl::string_view input, const Model& model);
absl::Status RepeatedInput(absl::string_view input);
absl::Status UnknownOutput(absl::string_view output, const Model& model);
absl::Status RepeatedOutput(absl::string_view output);
absl::Status WrongDatatype(absl::string_view input, absl::string_view datatype, const Model& model);
absl::Status NegativeDimension(absl::string_view input, absl::Span<const int64_t> shape);
absl::Status ShapeTooLarge(absl::string_view input, absl::Span<const int64_t> shape);
// The last dimension is not as long as the rows of `model`, or there is none.
absl::Status WrongLastDimension(absl::string_view input, absl::Span<const int64_t> shape,
                                const Model& model);
absl::Status ShapesDiffer(absl::string_view input, absl::Span<const int64_t> shape,
                          absl::string_view first, absl::Span<const int64_t> first_shape);

// The data of a request.
absl::Status WrongSize(absl::string_view input, int64_t found_bytes,
                       absl::Span<const int64_t> shape, Dtype dtype, int64_t needed_bytes);
absl::Status NoData(absl::string_view input, absl::Span<const int64_t> shape, Dtype dtype,
                    int64_t needed_bytes);
absl::Status TooManyRawEntries(int found, absl::Span<const absl::string_view> inputs);
absl::Status BothKindsOfData(absl::string_view input);
absl::Status TypedNotAccepted(absl::string_view input, Dtype dtype);
absl::Status WrongTypedField(absl::string_view input, absl::string_view field);

// Limits and life cycle.
absl::Status RequestTooLarge(int64_t bytes, int64_t max_request_bytes);
absl::Status ResponseTooLarge(int64_t bytes, int64_t max_request_bytes);
// `refusal`, which is one of the errors for requests that are too large, with the advice to place
// gradients of weights in regions.
absl::Status GradientsNeedRegions(const absl::Status& refusal);
absl::Status MetadataTooLarge(int64_t bytes, int64_t max_metadata_bytes);
// `bytes`: the size of the message, or the memory that its request would need in addition to the
// message. Most of this memory is slabs.
absl::Status ExceedsBudget(int64_t bytes, int64_t memory_budget_bytes);
// For messages that are not complete yet.
absl::Status RequestOutgrows(int64_t max_request_bytes);
absl::Status MessageOutgrows(int64_t max_bytes);
absl::Status UnannouncedTooLarge(int64_t max_bytes, int64_t memory_budget_bytes);
absl::Status QueueFull(int64_t max_queued_requests);
absl::Status TooManyCalls(int64_t max_calls);
absl::Status BudgetInUse(int64_t memory_budget_bytes);
absl::Status ShareInUse(int64_t memory_budget_bytes);
// For a message on a connection that still receives the bytes of refused messages.
absl::Status BesideRefused();
absl::Status Draining();
// The weights of `model` are not there yet.
absl::Status WeightsNotLoaded(const Model& model);
absl::Status LateMessage(absl::Duration limit);
absl::Status Expired(absl::string_view when);
absl::Status Cancelled(absl::string_view when);

// Methods.
absl::Status UnknownMethod(absl::string_view path);
absl::Status MethodNotOffered(absl::string_view reason);
absl::Status UnknownHealthService(absl::string_view service);
// `asked`: the name of a protocol file, or the full name of something that such a file defines.
absl::Status NotReflected(absl::string_view asked);

}  // namespace swiglu::server::errors
