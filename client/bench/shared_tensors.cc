// SPDX-License-Identifier: Apache-2.0
//
// Places in a region, and what is written to them and read from them.
#include "client/bench/shared_tensors.h"

#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"
#include "client/bench/model_call.h"

namespace swiglu::bench {
namespace {

// Where tensors begin: a multiple of this.
constexpr int64_t kAlignment = 256;

int64_t RoundUp(int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

}  // namespace

SharedTensors::SharedTensors(const RequestData& largest, int num_sets)
    : model_(largest.model()),
      tensor_bytes_(RoundUp(TensorBytes(model_, largest.num_elements()))),
      set_bytes_(tensor_bytes_ *
                 static_cast<int64_t>(model_.inputs.size() + model_.outputs.size())),
      last_(static_cast<size_t>(num_sets)) {}

absl::StatusOr<std::unique_ptr<SharedTensors>> SharedTensors::Create(const client::Client& client,
                                                                     SharedMemory kind,
                                                                     int num_sets,
                                                                     const RequestData& largest) {
  // Not make_unique: the constructor is private.
  std::unique_ptr<SharedTensors> tensors(new SharedTensors(largest, num_sets));
  if (tensors->set_bytes_ > std::numeric_limits<int64_t>::max() / num_sets) {
    return absl::ResourceExhaustedError("the tensors of all requests are too large");
  }
  absl::StatusOr<std::unique_ptr<SharedRegion>> region =
      kind == SharedMemory::kSystem ? CreateSystemRegion(client, tensors->num_bytes())
                                    : CreateCudaRegion(client, tensors->num_bytes());
  if (!region.ok()) return region.status();
  tensors->region_ = *std::move(region);
  const absl::Status status = tensors->Fill(largest);
  if (!status.ok()) return status;
  return tensors;
}

absl::Status SharedTensors::Fill(const RequestData& largest) {
  const std::vector<std::byte> no_result(static_cast<size_t>(tensor_bytes_), std::byte{0xff});
  for (size_t set = 0; set < last_.size(); ++set) {
    const int64_t begin = static_cast<int64_t>(set) * set_bytes_;
    for (size_t k = 0; k < model_.inputs.size() + model_.outputs.size(); ++k) {
      const int64_t place = begin + static_cast<int64_t>(k) * tensor_bytes_;
      absl::Status status;
      if (k < model_.inputs.size()) {
        const absl::Span<const std::byte> bytes = largest.input(k);
        const size_t shift =
            set * static_cast<size_t>(client::ElementBytes(model_.dtype)) % bytes.size();
        status = region_->Write(place, bytes.subspan(shift));
        if (status.ok()) {
          status = region_->Write(place + static_cast<int64_t>(bytes.size() - shift),
                                  bytes.subspan(0, shift));
        }
      } else {
        status = region_->Write(place, no_result);
      }
      if (!status.ok()) return status;
    }
  }
  return absl::OkStatus();
}

client::RegionPart SharedTensors::Place(size_t set, size_t tensor, int64_t num_elements) const {
  return region_->Part(
      static_cast<int64_t>(set) * set_bytes_ + static_cast<int64_t>(tensor) * tensor_bytes_,
      TensorBytes(model_, num_elements));
}

client::InputTensor SharedTensors::Input(size_t set, size_t k, const RequestData& data) const {
  return {model_.dtype, data.shape(), Place(set, k, data.num_elements())};
}

client::OutputTensor SharedTensors::Output(size_t set, size_t k, const RequestData& data) const {
  return Place(set, model_.inputs.size() + k, data.num_elements());
}

client::Inference SharedTensors::ToInference(size_t set, size_t layer,
                                             const RequestData& data) const {
  client::Inference inference{.model = model_.names[layer],
                              .dtype = model_.dtype,
                              .shape = data.shape(),
                              .row_elements = model_.row_elements,
                              .inputs = {},
                              .outputs = {}};
  for (size_t k = 0; k < model_.inputs.size(); ++k) {
    inference.inputs.push_back({model_.inputs[k], {}, Input(set, k, data).part});
  }
  for (size_t k = 0; k < model_.outputs.size(); ++k) {
    inference.outputs.push_back({model_.outputs[k], {}, Output(set, k, data).part});
  }
  return inference;
}

void SharedTensors::Finish(size_t set, size_t layer, const RequestData& data,
                           const absl::Status& status) {
  last_[set] = {status.ok() ? data.num_elements() : 0, layer};
}

absl::StatusOr<int64_t> SharedTensors::Check(client::Client& client) const {
  int64_t num_checked = 0;
  for (size_t set = 0; set < last_.size(); ++set) {
    if (last_[set].num_elements == 0) continue;
    const absl::Status status = CheckSet(client, set);
    if (!status.ok()) return status;
    ++num_checked;
  }
  return num_checked;
}

absl::Status SharedTensors::CheckSet(client::Client& client, size_t set) const {
  const auto [num_elements, layer] = last_[set];
  const auto size = static_cast<size_t>(TensorBytes(model_, num_elements));
  const auto new_tensors = [size](size_t num) {
    return std::vector<std::vector<std::byte>>(num, std::vector<std::byte>(size));
  };
  std::vector<std::vector<std::byte>> inputs = new_tensors(model_.inputs.size());
  std::vector<std::vector<std::byte>> expected = new_tensors(model_.outputs.size());
  std::vector<std::byte> found(size);
  const auto read = [&](size_t tensor, std::vector<std::byte>& bytes) {
    return region_->Read(
        static_cast<int64_t>(set) * set_bytes_ + static_cast<int64_t>(tensor) * tensor_bytes_,
        absl::MakeSpan(bytes));
  };
  std::vector<client::InputTensor> views;
  for (size_t k = 0; k < inputs.size(); ++k) {
    absl::Status status = read(k, inputs[k]);
    if (!status.ok()) return status;
    views.push_back(client::TensorView{model_.dtype, ShapeOf(model_, num_elements), inputs[k]});
  }
  std::vector<client::OutputTensor> places;
  for (std::vector<std::byte>& bytes : expected) places.push_back(absl::MakeSpan(bytes));
  absl::Status status = CallModel(client, model_, layer, views, places);
  for (size_t k = 0; k < expected.size(); ++k) {
    if (status.ok()) status = read(inputs.size() + k, found);
    if (!status.ok()) return status;
    const auto [wrong, right] = std::mismatch(found.begin(), found.end(), expected[k].begin());
    if (wrong == found.end()) continue;
    return absl::DataLossError(
        absl::StrCat("wrong result: byte ", wrong - found.begin(), " of output '",
                     model_.outputs[k], "' of request ", set, " is ", static_cast<int>(*wrong),
                     " in shared memory and ", static_cast<int>(*right), " in a message"));
  }
  return absl::OkStatus();
}

}  // namespace swiglu::bench
