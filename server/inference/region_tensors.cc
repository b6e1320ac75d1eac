// SPDX-License-Identifier: Apache-2.0
//
// Lookups and checks. See the header.
#include "server/inference/region_tensors.h"

#include <optional>
#include <utility>

#include "absl/strings/string_view.h"
#include "server/codec/errors.h"
#include "server/codec/region_errors.h"

namespace swiglu::server {
namespace {

// A tensor of the request. `position`: of an input, its position in Model::inputs; of an output,
// its number.
struct Tensor {
  absl::string_view name;
  int position;
  bool is_input;
  bool is_gradient;
  Dtype dtype;
  int64_t size_bytes;
};

// One tensor in a region.
struct Located {
  Tensor tensor;
  std::byte* data;
  int device;
};

class Finder {
 public:
  Finder(const InferPlan& plan, const RegionRegistry& registry, Clock::time_point now)
      : plan_(plan), registry_(registry), now_(now) {}

  absl::StatusOr<std::shared_ptr<RegionTensors>> Find() {
    const Model& model = *plan_.model;
    for (int k = 0; k < static_cast<int>(model.inputs.size()); ++k) {
      absl::Status status = Locate(Input(k), plan_.regions->inputs[static_cast<size_t>(k)]);
      if (!status.ok()) return status;
    }
    for (int k = 0; k < model.num_outputs(); ++k) {
      absl::Status status = Locate(Output(k), plan_.regions->outputs[static_cast<size_t>(k)]);
      if (!status.ok()) return status;
    }
    absl::Status status = Place();
    if (status.ok()) status = CheckOverlaps();
    if (!status.ok()) return status;
    return std::move(tensors_);
  }

 private:
  Tensor Input(int k) const {
    const Model& model = *plan_.model;
    return {model.inputs[static_cast<size_t>(k)], k, true, false, model.dtype, plan_.tensor_bytes};
  }

  Tensor Output(int k) const {
    const Model& model = *plan_.model;
    const bool is_gradient = model.FindGradient(k) != nullptr;
    return {model.OutputName(k), k, false, is_gradient, is_gradient ? Dtype::kFp32 : model.dtype,
            plan_.OutputBytes(k)};
  }

  absl::Status Locate(const Tensor& tensor, const std::optional<RegionPart>& part) {
    if (!part.has_value()) return absl::OkStatus();
    const absl::string_view name = tensor.name;
    absl::Status status = CheckSize(tensor, *part);
    if (!status.ok()) return status;
    RegionUse region = registry_.Find(part->region, now_);
    if (region == nullptr) return errors::UnknownRegion(part->region);
    // Neither is negative, so this wraps for no offset.
    if (*part->size_bytes > region->size_bytes() - part->offset) {
      return errors::OutsideRegion(name, part->region, part->offset, *part->size_bytes,
                                   region->size_bytes());
    }
    const int64_t element_bytes = ElementBytes(tensor.dtype);
    std::byte* const data = region->memory().data() + part->offset;
    if (reinterpret_cast<uintptr_t>(data) % element_bytes != 0) {
      return errors::UnalignedInRegion(name, part->region, part->offset, element_bytes);
    }
    const auto k = static_cast<size_t>(tensor.position);
    (tensor.is_input ? tensors_->inputs[k] : tensors_->outputs[k]) = data;
    (tensor.is_input ? tensors_->bytes_in
                     : tensors_->bytes_out)[static_cast<size_t>(region->kind())] +=
        tensor.size_bytes;
    located_.push_back({tensor, data, region->memory().device()});
    tensors_->uses.push_back(std::move(region));
    return absl::OkStatus();
  }

  absl::Status CheckSize(const Tensor& tensor, const RegionPart& part) const {
    if (!part.size_bytes.has_value()) return errors::NoRegionSize(tensor.name);
    if (tensor.is_input && *part.size_bytes != tensor.size_bytes) {
      return errors::WrongSize(tensor.name, *part.size_bytes, plan_.shape, tensor.dtype,
                               tensor.size_bytes);
    }
    if (!tensor.is_input && *part.size_bytes < tensor.size_bytes) {
      return errors::RegionPartTooSmall(tensor.name, tensor.size_bytes, *part.size_bytes);
    }
    return absl::OkStatus();
  }

  absl::Status Place() {
    const Located* first = nullptr;
    size_t num_on_device = 0;
    for (const Located& located : located_) {
      if (located.device == kCpuDevice) continue;
      ++num_on_device;
      if (first == nullptr) first = &located;
      if (located.device != first->device) {
        return errors::RegionsOfTwoDevices(first->tensor.name, first->device, located.tensor.name,
                                           located.device);
      }
    }
    if (first == nullptr) return absl::OkStatus();
    const size_t num_tensors = plan_.model->inputs.size() + plan_.ComputedOutputs().count();
    tensors_->placement = {first->device, num_on_device == num_tensors};
    return absl::OkStatus();
  }

  absl::Status CheckOverlaps() const {
    for (const Located& output : located_) {
      if (output.tensor.is_input) continue;
      for (const Located& other : located_) {
        if (&other == &output || !Overlap(output, other) || IsInPlace(output, other)) continue;
        return output.tensor.is_gradient && other.tensor.is_input
                   ? errors::GradientOverlapsInput(output.tensor.name, other.tensor.name)
                   : errors::TensorsOverlap(output.tensor.name, other.tensor.name,
                                            other.tensor.is_input);
      }
    }
    return absl::OkStatus();
  }

  static bool Overlap(const Located& a, const Located& b) {
    if (a.tensor.size_bytes == 0 || b.tensor.size_bytes == 0) return false;
    return a.data < b.data + b.tensor.size_bytes && b.data < a.data + a.tensor.size_bytes;
  }

  static bool IsInPlace(const Located& output, const Located& other) {
    return other.tensor.is_input && !output.tensor.is_gradient &&
           other.tensor.position == output.tensor.position && other.data == output.data;
  }

  const InferPlan& plan_;
  const RegionRegistry& registry_;
  const Clock::time_point now_;
  std::shared_ptr<RegionTensors> tensors_ = std::make_shared<RegionTensors>();
  std::vector<Located> located_;
};

}  // namespace

absl::StatusOr<std::shared_ptr<RegionTensors>> FindRegionTensors(const InferPlan& plan,
                                                                 const RegionRegistry& registry,
                                                                 Clock::time_point now) {
  if (plan.regions == nullptr) return nullptr;
  return Finder(plan, registry, now).Find();
}

}  // namespace swiglu::server
