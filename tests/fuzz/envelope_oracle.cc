// SPDX-License-Identifier: Apache-2.0
//
// The comparison, part by part. See the header.
#include "tests/fuzz/envelope_oracle.h"

#include <cstddef>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"
#include "google/protobuf/stubs/logging.h"
#include "proto/inference.pb.h"
#include "server/codec/infer_decoder.h"
#include "server/codec/infer_message.h"

namespace swiglu::server {
namespace {

using inference::ModelInferRequest;
using Floats = google::protobuf::RepeatedField<float>;

constexpr size_t kMaxRawEntries = kMaxEnvelopeBytes / sizeof(TensorBytes);

// Whether the bytes could spell something that only the generated parser takes: bits dropped from a
// tag's fifth byte or a varint's tenth, or more groups than ours nests.
bool MayBeLax(absl::string_view message) {
  int num_continued = 0;
  int num_groups = 0;
  for (const char byte : message) {
    const auto value = static_cast<unsigned char>(byte);
    if ((num_continued >= 4 && value > 0xF) || (num_continued >= 9 && value > 1)) return true;
    num_continued = value >= 0x80 ? num_continued + 1 : 0;
    num_groups += (value & 7) == 3;
  }
  return num_groups > 32;
}

bool IsWithinBounds(const FuzzInput& input, const ModelInferRequest& expected) {
  return input.message.size() <= kMaxEnvelopeBytes &&
         static_cast<size_t>(expected.raw_input_contents_size()) <= kMaxRawEntries;
}

// The same for equal messages, even with maps and NaNs in them.
std::string ToBytes(const ModelInferRequest& request) {
  std::string bytes;
  {
    google::protobuf::io::StringOutputStream stream(&bytes);
    google::protobuf::io::CodedOutputStream coded(&stream);
    coded.SetSerializationDeterministic(true);
    request.SerializeWithCachedSizes(&coded);
  }
  return bytes;
}

absl::string_view ToBytes(const Floats& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)};
}

// Whether `found` in its slices is `expected`. Copied into memory of exactly that size.
bool Matches(const TensorBytes& found, absl::string_view expected) {
  std::vector<std::byte> copy(found.size_bytes);
  SliceReader reader = found.begin;
  reader.Copy(copy.data(), copy.size());
  return expected == absl::string_view(reinterpret_cast<const char*>(copy.data()), copy.size());
}

// Compares the parts, and takes from `expected` what ours leaves in the slices.
std::string CompareMessage(const InferMessage& message, ModelInferRequest expected) {
  if (message.raw.size() != static_cast<size_t>(expected.raw_input_contents_size())) {
    return absl::StrCat("finds ", message.raw.size(), " raw entries");
  }
  for (size_t i = 0; i < message.raw.size(); ++i) {
    if (!Matches(message.raw[i], expected.raw_input_contents(static_cast<int>(i)))) {
      return absl::StrCat("finds other bytes in raw entry ", i);
    }
  }
  expected.clear_raw_input_contents();
  if (message.typed.size() != static_cast<size_t>(expected.inputs_size())) {
    return absl::StrCat("finds ", message.typed.size(), " inputs");
  }
  for (size_t i = 0; i < message.typed.size(); ++i) {
    if (message.typed[i].size_bytes == 0) continue;
    auto* input = expected.mutable_inputs(static_cast<int>(i));
    Floats* values = input->mutable_contents()->mutable_fp32_contents();
    if (!Matches(message.typed[i], ToBytes(*values))) {
      return absl::StrCat("finds other typed contents in input ", i);
    }
    values->Clear();
  }
  expected.ByteSizeLong();
  message.envelope.ByteSizeLong();
  if (ToBytes(message.envelope) != ToBytes(expected)) return "finds another envelope";
  return "";
}

// The elements of the input of that name, raw or typed.
absl::string_view ExpectedTensor(const ModelInferRequest& request, absl::string_view name) {
  int index = 0;
  while (request.inputs(index).name() != name) ++index;
  if (index < request.raw_input_contents_size()) return request.raw_input_contents(index);
  return ToBytes(request.inputs(index).contents().fp32_contents());
}

std::string CompareTensors(const InferMessage& message, const ModelInferRequest& expected) {
  static const ModelRegistry kModels;
  const absl::StatusOr<InferPlan> plan = CheckInferMessage(message, kModels);
  if (!plan.ok()) return "";
  PlanReader reader(*plan);
  for (size_t k = 0; k < plan->model->inputs.size(); ++k) {
    std::vector<std::byte> copy(static_cast<size_t>(plan->tensor_bytes));
    reader.Read(static_cast<int>(k), copy.data(), copy.size());
    const absl::string_view found(reinterpret_cast<const char*>(copy.data()), copy.size());
    if (found != ExpectedTensor(expected, plan->model->inputs[k])) {
      return absl::StrCat("copies other bytes for input '", plan->model->inputs[k], "'");
    }
  }
  return "";
}

// Why ours should not have refused with `status`, if it should not have.
std::string CompareRefusal(const absl::Status& status, const FuzzInput& input, bool valid,
                           const ModelInferRequest& expected) {
  const bool refused_for_size = absl::IsResourceExhausted(status);
  if (!refused_for_size && !absl::IsInvalidArgument(status)) {
    return absl::StrCat("refuses with another code: ", status.ToString());
  }
  if (!valid) return "";
  if (refused_for_size ? !IsWithinBounds(input, expected) : MayBeLax(input.message)) return "";
  return absl::StrCat("refuses what the generated parser takes: ", status.ToString());
}

}  // namespace

std::string Disagreement(const FuzzInput& input) {
  // Bad UTF-8 is worth a line on stderr to protobuf, each time.
  const google::protobuf::LogSilencer silencer;
  ModelInferRequest expected;
  const bool valid = expected.ParseFromString(input.message);
  InferMessage message;
  const absl::Status status = ParseInferMessage(input.slices, message);
  if (!status.ok()) return CompareRefusal(status, input, valid, expected);
  if (!valid) return "takes what the generated parser refuses";
  if (message.raw.size() > kMaxRawEntries) return "takes more raw entries than the bound";
  std::string difference = CompareMessage(message, expected);
  return difference.empty() ? CompareTensors(message, expected) : difference;
}

}  // namespace swiglu::server
