// SPDX-License-Identifier: Apache-2.0
//
// Lookups and checks. See the header.
#include "server/inference/region_tensors.h"

#include <optional>
#include <utility>

#include "absl/strings/string_view.h"
#include "server/codec/errors.h"

namespace swiglu::server {
namespace {

// One tensor in a region.
struct Located {
  absl::string_view name;
  int position;
  bool is_input;
  std::byte* data;
  int device;
};

class Finder {
 public:
  Finder(const InferPlan& plan, const RegionRegistry& registry, Clock::time_point now)
      : plan_(plan), registry_(registry), now_(now) {}

  absl::StatusOr<std::shared_ptr<RegionTensors>> Find() {
    const Model& model = *plan_.model;
    for (size_t k = 0; k < model.inputs.size(); ++k) {
      absl::Status status = Locate(model.inputs[k], k, true, plan_.regions->inputs[k]);
      if (!status.ok()) return status;
    }
    for (size_t k = 0; k < model.outputs.size(); ++k) {
      absl::Status status = Locate(model.outputs[k], k, false, plan_.regions->outputs[k]);
      if (!status.ok()) return status;
    }
    absl::Status status = Place();
    if (status.ok()) status = CheckOverlaps();
    if (!status.ok()) return status;
    return std::move(tensors_);
  }

 private:
  absl::Status Locate(absl::string_view name, size_t k, bool is_input,
                      const std::optional<RegionPart>& part) {
    if (!part.has_value()) return absl::OkStatus();
    absl::Status status = CheckSize(name, is_input, *part);
    if (!status.ok()) return status;
    RegionUse region = registry_.Find(part->region, now_);
    if (region == nullptr) return errors::UnknownRegion(part->region);
    // Neither is negative, so this wraps for no offset.
    if (*part->size_bytes > region->size_bytes() - part->offset) {
      return errors::OutsideRegion(name, part->region, part->offset, *part->size_bytes,
                                   region->size_bytes());
    }
    const int64_t element_bytes = ElementBytes(plan_.model->dtype);
    std::byte* const data = region->memory().data() + part->offset;
    if (reinterpret_cast<uintptr_t>(data) % element_bytes != 0) {
      return errors::UnalignedInRegion(name, part->region, part->offset, element_bytes);
    }
    (is_input ? tensors_->inputs : tensors_->outputs)[k] = data;
    (is_input ? tensors_->bytes_in : tensors_->bytes_out)[static_cast<size_t>(region->kind())] +=
        plan_.tensor_bytes;
    located_.push_back({name, static_cast<int>(k), is_input, data, region->memory().device()});
    tensors_->uses.push_back(std::move(region));
    return absl::OkStatus();
  }

  absl::Status CheckSize(absl::string_view name, bool is_input, const RegionPart& part) const {
    if (!part.size_bytes.has_value()) return errors::NoRegionSize(name);
    if (is_input && *part.size_bytes != plan_.tensor_bytes) {
      return errors::WrongSize(name, *part.size_bytes, plan_.shape, plan_.model->dtype,
                               plan_.tensor_bytes);
    }
    if (!is_input && *part.size_bytes < plan_.tensor_bytes) {
      return errors::RegionPartTooSmall(name, plan_.tensor_bytes, *part.size_bytes);
    }
    return absl::OkStatus();
  }

  absl::Status Place() {
    const Located* first = nullptr;
    size_t num_on_device = 0;
    for (const Located& tensor : located_) {
      if (tensor.device == kCpuDevice) continue;
      ++num_on_device;
      if (first == nullptr) first = &tensor;
      if (tensor.device != first->device) {
        return errors::RegionsOfTwoDevices(first->name, first->device, tensor.name, tensor.device);
      }
    }
    if (first == nullptr) return absl::OkStatus();
    const Model& model = *plan_.model;
    tensors_->placement = {first->device,
                           num_on_device == model.inputs.size() + model.outputs.size()};
    return absl::OkStatus();
  }

  absl::Status CheckOverlaps() const {
    for (const Located& output : located_) {
      if (output.is_input) continue;
      for (const Located& other : located_) {
        if (&other == &output || !Overlap(output.data, other.data)) continue;
        const bool is_in_place =
            other.is_input && other.position == output.position && other.data == output.data;
        if (!is_in_place) return errors::TensorsOverlap(output.name, other.name, other.is_input);
      }
    }
    return absl::OkStatus();
  }

  bool Overlap(const std::byte* a, const std::byte* b) const {
    return a < b + plan_.tensor_bytes && b < a + plan_.tensor_bytes;
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
