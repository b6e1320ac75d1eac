// SPDX-License-Identifier: Apache-2.0
//
// The protocol's rules of the data. Sentences come from errors.h.
#include "server/codec/infer_decoder.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "server/codec/errors.h"
#include "server/codec/region_errors.h"

namespace swiglu::server {
namespace {

using inference::ModelInferRequest;
using Input = ModelInferRequest::InferInputTensor;

bool IsInteger(absl::string_view text) {
  if (!text.empty() && (text[0] == '-' || text[0] == '+')) text.remove_prefix(1);
  return !text.empty() && std::all_of(text.begin(), text.end(), absl::ascii_isdigit);
}

// The value of a parameter that counts something, capped at the largest int64; none if it is of
// another type.
std::optional<int64_t> CountParameter(const inference::InferParameter& value) {
  if (value.parameter_choice_case() == inference::InferParameter::kInt64Param) {
    return value.int64_param();
  }
  if (value.parameter_choice_case() == inference::InferParameter::kUint64Param) {
    return static_cast<int64_t>(
        std::min<uint64_t>(value.uint64_param(), std::numeric_limits<int64_t>::max()));
  }
  return std::nullopt;
}

absl::Status CheckTimeout(const inference::InferParameter& value, InferPlan& plan) {
  const std::optional<int64_t> timeout_us = CountParameter(value);
  if (!timeout_us.has_value()) return errors::BadTimeout("of another type");
  if (*timeout_us < 0) return errors::BadTimeout(absl::StrCat(*timeout_us));
  if (*timeout_us > 0) plan.timeout = std::chrono::microseconds(*timeout_us);
  return absl::OkStatus();
}

// 1 goes first, then 2, which is the default, then everything higher.
absl::Status CheckPriority(const inference::InferParameter& value, InferPlan& plan) {
  const std::optional<int64_t> priority = CountParameter(value);
  if (!priority.has_value()) return errors::BadPriority("of another type");
  if (*priority < 0) return errors::BadPriority(absl::StrCat(*priority));
  if (*priority == 1) plan.priority = Priority::kHigh;
  if (*priority > 2) plan.priority = Priority::kLow;
  return absl::OkStatus();
}

absl::Status CheckParameters(const ModelInferRequest& request, InferPlan& plan) {
  for (const auto& [name, value] : request.parameters()) {
    absl::Status status;
    if (absl::StartsWith(name, "sequence_") || name == "classification") {
      status = errors::UnsupportedParameter(name);
    } else if (name == "timeout") {
      status = CheckTimeout(value, plan);
    } else if (name == "priority") {
      status = CheckPriority(value, plan);
    }
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

// The parameters of a tensor that lies in a region.
constexpr absl::string_view kRegion = "shared_memory_region";
constexpr absl::string_view kRegionBytes = "shared_memory_byte_size";
constexpr absl::string_view kRegionOffset = "shared_memory_offset";

// Reads one of the tensor's parameters about regions.
absl::Status ReadRegionParameter(const std::string& tensor, const std::string& name,
                                 const inference::InferParameter& value, RegionPart& part) {
  if (name == kRegion) {
    if (value.parameter_choice_case() != inference::InferParameter::kStringParam) {
      return errors::BadRegionParameter(tensor, name, "of another type");
    }
    part.region = value.string_param();
    return absl::OkStatus();
  }
  const std::optional<int64_t> count = CountParameter(value);
  if (!count.has_value()) return errors::BadRegionParameter(tensor, name, "of another type");
  if (*count < 0) return errors::BadRegionParameter(tensor, name, absl::StrCat(*count));
  if (name == kRegionBytes) part.size_bytes = *count;
  if (name == kRegionOffset) part.offset = *count;
  return absl::OkStatus();
}

// The region that the tensor lies in, if its parameters name one.
template <typename Tensor>
absl::StatusOr<std::optional<RegionPart>> RegionPartOf(const Tensor& tensor, bool takes_regions) {
  RegionPart part;
  bool has_region = false;
  for (const auto& [name, value] : tensor.parameters()) {
    if (name == "classification") return errors::UnsupportedParameter(name);
    if (name != kRegion && name != kRegionBytes && name != kRegionOffset) continue;
    has_region |= name == kRegion;
    if (has_region && !takes_regions) {
      return errors::SharedMemoryOff(tensor.name(), value.string_param());
    }
    absl::Status status = ReadRegionParameter(tensor.name(), name, value, part);
    if (!status.ok()) return status;
  }
  if (!has_region) return std::nullopt;
  return part;
}

// The plan's regions, for writing.
RegionParts& RegionsOf(std::shared_ptr<RegionParts>& regions, InferPlan& plan) {
  if (regions == nullptr) plan.regions = regions = std::make_shared<RegionParts>();
  return *regions;
}

// The request's inputs in the model's order, each exactly once.
absl::StatusOr<std::array<const Input*, kMaxTensors>> MatchInputs(const ModelInferRequest& request,
                                                                  const Model& model) {
  std::array<const Input*, kMaxTensors> matched{};
  for (const Input& input : request.inputs()) {
    const auto found = std::find(model.inputs.begin(), model.inputs.end(), input.name());
    if (found == model.inputs.end()) return errors::UnknownInput(input.name(), model);
    const Input*& slot = matched[found - model.inputs.begin()];
    if (slot != nullptr) return errors::RepeatedInput(input.name());
    slot = &input;
  }
  for (size_t k = 0; k < model.inputs.size(); ++k) {
    if (matched[k] == nullptr) return errors::MissingInput(model.inputs[k]);
  }
  return matched;
}

// Elements of `shape`; an error if a dim is negative or the tensor has over 2^63 - 1 bytes.
absl::StatusOr<int64_t> CountElements(const std::string& name, absl::Span<const int64_t> shape,
                                      Dtype dtype) {
  bool empty = false;
  for (const int64_t dim : shape) {
    if (dim < 0) return errors::NegativeDimension(name, shape);
    empty |= dim == 0;
  }
  if (empty) return 0;
  const int64_t limit = std::numeric_limits<int64_t>::max() / ElementBytes(dtype);
  int64_t count = 1;
  for (const int64_t dim : shape) {
    if (count > limit / dim) return errors::ShapeTooLarge(name, shape);
    count *= dim;
  }
  return count;
}

// The input with whose shape the other shapes are compared: the first one, but of SwiGLU's backward
// pass the gate, as in the protocol's sentence.
size_t ReferenceInput(const Model& model) { return model.op == Op::kBackward ? 1 : 0; }

absl::Status CheckShapes(absl::Span<const Input* const> inputs, InferPlan& plan) {
  for (const Input* input : inputs) {
    const absl::Span<const int64_t> shape(input->shape().data(), input->shape_size());
    auto count = CountElements(input->name(), shape, plan.model->dtype);
    if (!count.ok()) return count.status();
    if (input == inputs[0]) {
      plan.shape.assign(shape.begin(), shape.end());
      plan.num_elements = *count;
      plan.tensor_bytes = *count * ElementBytes(plan.model->dtype);
    }
  }
  const Input& reference = *inputs[ReferenceInput(*plan.model)];
  const absl::Span<const int64_t> expected(reference.shape().data(), reference.shape_size());
  const int64_t row_elements = plan.model->row_elements;
  if (plan.model->has_rows() && (expected.empty() || expected.back() != row_elements)) {
    return errors::WrongLastDimension(reference.name(), expected, *plan.model);
  }
  for (const Input* input : inputs) {
    const absl::Span<const int64_t> shape(input->shape().data(), input->shape_size());
    if (shape != expected) {
      return errors::ShapesDiffer(input->name(), shape, reference.name(), expected);
    }
  }
  return absl::OkStatus();
}

// The name of a field of `contents` that holds anything, or ""; the good one only if it is alone.
absl::string_view TypedFieldInUse(const inference::InferTensorContents& contents) {
  if (contents.bool_contents_size() > 0) return "bool_contents";
  if (contents.int_contents_size() > 0) return "int_contents";
  if (contents.int64_contents_size() > 0) return "int64_contents";
  if (contents.uint_contents_size() > 0) return "uint_contents";
  if (contents.uint64_contents_size() > 0) return "uint64_contents";
  if (contents.fp64_contents_size() > 0) return "fp64_contents";
  if (contents.bytes_contents_size() > 0) return "bytes_contents";
  if (contents.fp32_contents_size() > 0) return "fp32_contents";
  return "";
}

// Finds the typed data of one input, if it has any: `packed`, or what the envelope has.
absl::Status CheckTyped(const Input& input, const TensorBytes& packed, bool has_raw,
                        const InferPlan& plan, InferPlan::Source& source) {
  absl::string_view field = TypedFieldInUse(input.contents());
  if (field.empty() && packed.size_bytes > 0) field = "fp32_contents";
  if (field.empty()) return absl::OkStatus();
  if (has_raw) return errors::BothKindsOfData(input.name());
  if (plan.model->dtype != Dtype::kFp32) {
    return errors::TypedNotAccepted(input.name(), plan.model->dtype);
  }
  if (field != "fp32_contents") return errors::WrongTypedField(input.name(), field);
  if (packed.size_bytes > 0) {
    source.bytes = &packed;
  } else {
    source.values = &input.contents().fp32_contents();
  }
  return absl::OkStatus();
}

// The inputs that lie in no region.
std::vector<absl::string_view> InlineInputs(const InferPlan& plan) {
  std::vector<absl::string_view> names;
  for (size_t k = 0; k < plan.model->inputs.size(); ++k) {
    if (plan.regions == nullptr || !plan.regions->inputs[k].has_value()) {
      names.push_back(plan.model->inputs[k]);
    }
  }
  return names;
}

// Gives each input that lies in no region its data: the k-th of them takes the k-th raw entry.
absl::Status MatchData(const InferMessage& message, InferPlan& plan) {
  const ModelInferRequest& request = message.envelope;
  const Model& model = *plan.model;
  if (plan.regions != nullptr || message.raw.size() > model.inputs.size()) {
    const std::vector<absl::string_view> names = InlineInputs(plan);
    if (message.raw.size() > names.size()) {
      return errors::TooManyRawEntries(static_cast<int>(message.raw.size()), names);
    }
  }
  size_t num_inline = 0;
  for (int i = 0; i < request.inputs_size(); ++i) {
    const Input& input = request.inputs(i);
    const auto position = std::find(model.inputs.begin(), model.inputs.end(), input.name());
    const size_t k = position - model.inputs.begin();
    InferPlan::Source& source = plan.sources[k];
    if (plan.regions != nullptr && plan.regions->inputs[k].has_value()) {
      if (!TypedFieldInUse(input.contents()).empty() || message.typed[i].size_bytes > 0) {
        return errors::TypedBesideRegion(input.name());
      }
      continue;
    }
    const size_t raw_index = num_inline++;

    absl::Status status = CheckTyped(input, message.typed[i], !message.raw.empty(), plan, source);
    if (!status.ok()) return status;
    int64_t found_bytes = 0;
    if (source.values != nullptr) {
      found_bytes = int64_t{source.values->size()} * 4;
    } else if (source.bytes != nullptr) {
      found_bytes = static_cast<int64_t>(source.bytes->size_bytes);
    } else if (raw_index < message.raw.size()) {
      source.bytes = &message.raw[raw_index];
      found_bytes = static_cast<int64_t>(source.bytes->size_bytes);
    } else if (plan.num_elements > 0) {
      return errors::NoData(input.name(), plan.shape, model.dtype, plan.tensor_bytes);
    }
    if (found_bytes != plan.tensor_bytes) {
      return errors::WrongSize(input.name(), found_bytes, plan.shape, model.dtype,
                               plan.tensor_bytes);
    }
  }
  return absl::OkStatus();
}

absl::Status MatchOutputs(const ModelInferRequest& request, bool takes_regions,
                          std::shared_ptr<RegionParts>& regions, InferPlan& plan) {
  const Model& model = *plan.model;
  for (const auto& output : request.outputs()) {
    int index = 0;
    while (index < model.num_outputs() && model.OutputName(index) != output.name()) ++index;
    if (index == model.num_outputs()) return errors::UnknownOutput(output.name(), model);
    if (std::find(plan.outputs.begin(), plan.outputs.end(), index) != plan.outputs.end()) {
      return errors::RepeatedOutput(output.name());
    }
    auto part = RegionPartOf(output, takes_regions);
    if (!part.ok()) return part.status();
    if (part->has_value()) {
      RegionsOf(regions, plan).outputs[index] = *std::move(part);
    }
    plan.outputs.push_back(index);
  }
  // All but gradients.
  if (plan.outputs.empty()) {
    for (size_t k = 0; k < model.outputs.size(); ++k) plan.outputs.push_back(static_cast<int>(k));
  }
  return absl::OkStatus();
}

}  // namespace

bool InferPlan::has_gradients() const {
  return std::any_of(outputs.begin(), outputs.end(),
                     [this](int output) { return model->FindGradient(output) != nullptr; });
}

bool InferPlan::has_inline_gradients() const {
  return std::any_of(outputs.begin(), outputs.end(), [this](int output) {
    return model->FindGradient(output) != nullptr && IsInline(output);
  });
}

OutputSet InferPlan::ComputedOutputs() const {
  OutputSet computed;
  if (has_gradients()) {
    for (const int output : outputs) computed.set(static_cast<size_t>(output));
  } else {
    for (size_t k = 0; k < model->outputs.size(); ++k) computed.set(k);
  }
  return computed;
}

absl::StatusOr<const Model*> ResolveModel(const std::string& name, const std::string& version,
                                          const ModelRegistry& models) {
  const Model* model = models.Find(name);
  if (model == nullptr) return errors::UnknownModel(name, models);
  if (version.empty()) return model;
  if (!IsInteger(version)) return errors::VersionNotInteger(version);
  int64_t number = 0;
  if (!absl::SimpleAtoi(version, &number) || number != 1) {
    return errors::WrongVersion(*model, version);
  }
  return model;
}

absl::StatusOr<InferPlan> CheckInferMessage(const InferMessage& message,
                                            const ModelRegistry& models, bool takes_regions) {
  const ModelInferRequest& request = message.envelope;
  InferPlan plan;
  auto model = ResolveModel(request.model_name(), request.model_version(), models);
  if (!model.ok()) return model.status();
  plan.model = *model;

  absl::Status status = CheckParameters(request, plan);
  if (!status.ok()) return status;
  auto inputs = MatchInputs(request, *plan.model);
  if (!inputs.ok()) return inputs.status();
  const absl::Span<const Input* const> used(inputs->data(), plan.model->inputs.size());
  std::shared_ptr<RegionParts> regions;
  for (size_t k = 0; k < used.size(); ++k) {
    const Input& input = *used[k];
    if (input.datatype() != DatatypeName(plan.model->dtype)) {
      return errors::WrongDatatype(input.name(), input.datatype(), *plan.model);
    }
    if (input.parameters().empty()) continue;
    auto part = RegionPartOf(input, takes_regions);
    if (!part.ok()) return part.status();
    if (part->has_value()) RegionsOf(regions, plan).inputs[k] = *std::move(part);
  }
  status = CheckShapes(used, plan);
  if (!status.ok()) return status;
  status = MatchData(message, plan);
  if (!status.ok()) return status;
  status = MatchOutputs(request, takes_regions, regions, plan);
  if (!status.ok()) return status;
  if (plan.model->weights != nullptr) {
    plan.weights = plan.model->weights->Get();
    if (plan.weights == nullptr) return errors::WeightsNotLoaded(*plan.model);
  }
  return plan;
}

PlanReader::PlanReader(const InferPlan& plan) {
  for (int k = 0; k < kMaxTensors; ++k) {
    const InferPlan::Source& source = plan.sources[k];
    if (source.bytes != nullptr) sources_[k].bytes = source.bytes->begin;
    if (source.values == nullptr) continue;
    sources_[k].values = std::make_shared<const std::string>(
        reinterpret_cast<const char*>(source.values->data()), plan.tensor_bytes);
  }
}

void PlanReader::Read(int k, std::byte* target, size_t size_bytes) {
  Source& source = sources_[k];
  if (source.values == nullptr) return source.bytes.Copy(target, size_bytes);
  std::memcpy(target, source.values->data() + source.num_read, size_bytes);
  source.num_read += size_bytes;
}

void PlanReader::Skip(size_t size_bytes) {
  for (Source& source : sources_) {
    source.num_read += size_bytes;
    // An input that is not in slices, or that the model does not have, has nothing to skip.
    source.bytes.Skip(size_bytes);
  }
}

}  // namespace swiglu::server
