// SPDX-License-Identifier: Apache-2.0
//
// Checks, then time limits, then the connection.
#include "client/client_calls.h"

#include <algorithm>
#include <new>

#include "absl/strings/ascii.h"

namespace swiglu::client {
namespace {

// The timeout of a call without tensors, and what each byte of its tensors adds: 1 s for 100 MB.
constexpr absl::Duration kBaseTimeout = absl::Seconds(30);
constexpr absl::Duration kTimeoutPerByte = absl::Nanoseconds(10);

constexpr size_t kMaxMetadataLength = 256;

// Metadata with other characters would end the process in gRPC.
absl::Status CheckMetadata(absl::string_view option, absl::string_view text) {
  if (text.size() > kMaxMetadataLength) {
    return absl::InvalidArgumentError(absl::StrCat("option ", option, " has ", text.size(),
                                                   " characters; it takes ", kMaxMetadataLength));
  }
  if (std::all_of(text.begin(), text.end(), absl::ascii_isprint)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("option ", option, " has a character that is not printable ASCII"));
}

absl::Status CheckCall(const CallTarget& target, const InferCall& call,
                       const CallOptions& options) {
  absl::Status status = CheckInputs(call);
  if (status.ok()) status = CheckOutputs(call);
  if (status.ok()) status = CheckMetadata("request_id", options.request_id);
  if (status.ok()) status = CheckMetadata("traceparent", options.traceparent);
  if (status.ok() && UsesRegions(call)) status = CheckRegionsAllowed(*target.connection);
  return status;
}

absl::StatusOr<std::string> ToWeights(CallResult result, const CallOptions& options) {
  if (options.statistics != nullptr) *options.statistics = std::move(result.statistics);
  if (!result.status.ok()) return std::move(result.status);
  return std::move(result.weights_sha256);
}

// Gives `tensor` that dtype and shape, with uninitialised bytes.
absl::Status MakeTensor(absl::string_view name, Dtype dtype, Shape shape, Tensor* tensor) {
  const absl::StatusOr<int64_t> size_bytes = TensorBytes(name, dtype, shape);
  if (!size_bytes.ok()) return size_bytes.status();
  try {
    *tensor = Tensor(dtype, std::move(shape), *size_bytes);
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError(
        absl::StrCat("no memory for output '", name, "': ", *size_bytes, " bytes"));
  }
  return absl::OkStatus();
}

// What the connection borrows while a call that does not block is under way.
struct Borrowed {
  std::string model;
  Inference inference;
  CallOptions options;
  CallDone done;
};

}  // namespace

absl::Status CheckRegionsAllowed(const Connection& connection) {
  if (connection.has_one_server()) return absl::OkStatus();
  if (connection.num_servers() == 1) {
    return absl::FailedPreconditionError(
        "this client's address may stand for several servers; a client that uses regions of shared "
        "memory has one, HOST:PORT or unix:/path");
  }
  return absl::FailedPreconditionError(
      absl::StrCat("this client has ", connection.num_servers(),
                   " servers; a client that uses regions of shared memory has one"));
}

TimeLimit LimitOf(const CallTarget& target, int64_t num_bytes, const CallOptions& options) {
  if (options.timeout) return TimeLimit(*options.timeout);
  if (target.timeout > absl::ZeroDuration()) return TimeLimit(target.timeout);
  return TimeLimit(kBaseTimeout + kTimeoutPerByte * num_bytes);
}

absl::StatusOr<std::string> RunCall(const CallTarget& target, const InferCall& call,
                                    const CallOptions& options) {
  if (absl::Status status = CheckCall(target, call, options); !status.ok()) return status;
  CallResult result = target.connection->Infer(
      ToInference(call), {LimitOf(target, TotalBytes(call), options), &options});
  const std::exception_ptr exception = result.exception;
  absl::StatusOr<std::string> weights = ToWeights(std::move(result), options);
  if (exception) std::rethrow_exception(exception);
  return weights;
}

void StartCall(const CallTarget& target, const InferCall& call, const CallOptions& options,
               Cancellation* cancellation, CallDone done) {
  if (absl::Status status = CheckCall(target, call, options); !status.ok()) {
    return std::move(done)(std::move(status));
  }
  // Not make_unique, which would move the inference.
  std::unique_ptr<Borrowed> owned(
      new Borrowed{std::string(call.model), ToInference(call), options, std::move(done)});
  Borrowed& borrowed = *owned;
  borrowed.inference.model = borrowed.model;
  CallContext context{LimitOf(target, TotalBytes(call), options), &borrowed.options};
  context.cancellation = cancellation;
  target.connection->StartInfer(
      borrowed.inference, context, [owned = std::move(owned)](CallResult&& result) mutable {
        absl::StatusOr<std::string> weights = ToWeights(std::move(result), owned->options);
        CallDone its_done = std::move(owned->done);
        owned.reset();
        std::move(its_done)(std::move(weights));
      });
}

void StartCall(const CallTarget& target, const InferCall& call, const CallOptions& options,
               Cancellation* cancellation, Client::Callback<absl::Status> callback) {
  StartCall(target, call, options, cancellation,
            CallDone([callback = std::move(callback)](absl::StatusOr<std::string> weights) mutable {
              std::move(callback)(std::move(weights).status());
            }));
}

PreparedCall::PreparedCall(InferCall its_call)
    : call(std::move(its_call)), status(CheckInputs(call)) {}

void PreparedCall::AddOutput(absl::string_view name, Tensor* tensor) {
  const InferCall::Input& like = call.reference();
  Add(name, like.dtype, *like.shape, OutputForm::kAsInputs, tensor);
}

void PreparedCall::AddGradient(absl::string_view name, Shape shape, OutputForm form,
                               Tensor* tensor) {
  Add(name, Dtype::kFp32, std::move(shape), form, tensor);
}

void PreparedCall::Add(absl::string_view name, Dtype dtype, Shape shape, OutputForm form,
                       Tensor* tensor) {
  if (status.ok()) status = MakeTensor(name, dtype, std::move(shape), tensor);
  if (status.ok()) call.outputs.emplace_back(name, tensor->mutable_bytes(), form);
}

}  // namespace swiglu::client
