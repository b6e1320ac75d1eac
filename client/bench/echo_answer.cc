// SPDX-License-Identifier: Apache-2.0
//
// Encodes the framing of answers once. The tensors' bytes of an answer are parts of the copy.
#include "client/bench/echo_answer.h"

#include <array>
#include <cstring>
#include <string>
#include <utility>

#include "client/infer_codec.h"
#include "google/protobuf/wire_format_lite.h"
#include "grpcpp/support/proto_buffer_reader.h"
#include "proto/inference.pb.h"

namespace swiglu::bench {
namespace {

using google::protobuf::internal::WireFormatLite;
using inference::ModelInferResponse;

constexpr uint32_t kRawOutputTag = WireFormatLite::MakeTag(
    ModelInferResponse::kRawOutputContentsFieldNumber, WireFormatLite::WIRETYPE_LENGTH_DELIMITED);

// What a request of rank 1 may have beside its tensors.
constexpr size_t kMaxEnvelopeBytes = size_t{4} << 10;

// At most three outputs, with a slice of framing and a slice of bytes for each.
constexpr size_t kMaxSlices = 6;

std::string Envelope(const Model& model, int64_t num_elements) {
  ModelInferResponse response;
  response.set_model_name(model.name());
  response.set_model_version("1");
  const absl::string_view datatype = client::DatatypeName(model.dtype);
  for (const absl::string_view name : model.outputs) {
    auto* output = response.add_outputs();
    output->set_name(name.data(), name.size());
    output->set_datatype(datatype.data(), datatype.size());
    output->add_shape(num_elements);
  }
  return response.SerializeAsString();
}

void Copy(grpc::ByteBuffer* message, uint8_t* to) {
  grpc::ProtoBufferReader reader(message);
  const void* bytes = nullptr;
  int size = 0;
  while (reader.Next(&bytes, &size)) {
    std::memcpy(to, bytes, static_cast<size_t>(size));
    to += size;
  }
}

}  // namespace

std::shared_ptr<BufferPool> BufferPool::Create(size_t size_bytes) {
  return std::shared_ptr<BufferPool>(new BufferPool(size_bytes));
}

grpc::Slice BufferPool::Take() {
  std::unique_ptr<Buffer> buffer = TakeIdle();
  if (buffer == nullptr) {
    buffer = std::make_unique<Buffer>();
    buffer->bytes = std::make_unique_for_overwrite<std::byte[]>(size_bytes_);
  }
  buffer->home = shared_from_this();
  std::byte* const bytes = buffer->bytes.get();
  return grpc::Slice(bytes, size_bytes_, &BufferPool::TakeBack, buffer.release());
}

// The last used first: it is likely to be in a cache.
std::unique_ptr<BufferPool::Buffer> BufferPool::TakeIdle() {
  absl::MutexLock lock(&mutex_);
  if (idle_.empty()) return nullptr;
  std::unique_ptr<Buffer> buffer = std::move(idle_.back());
  idle_.pop_back();
  return buffer;
}

void BufferPool::TakeBack(void* lent) {
  std::unique_ptr<Buffer> buffer(static_cast<Buffer*>(lent));
  const std::shared_ptr<BufferPool> home = std::move(buffer->home);
  absl::MutexLock lock(&home->mutex_);
  home->idle_.push_back(std::move(buffer));
}

EchoAnswers::EchoAnswers(const Model& model, const std::vector<int64_t>& request_bytes) {
  for (const int64_t bytes : request_bytes) {
    const int64_t num_elements = NumElements(model, bytes);
    Form form;
    form.input_bytes = static_cast<size_t>(InputBytes(model, num_elements));
    form.tensor_bytes = static_cast<size_t>(TensorBytes(model, num_elements));
    form.pool = BufferPool::Create(form.input_bytes + kMaxEnvelopeBytes);
    std::string framing = Envelope(model, num_elements);
    for (size_t k = 0; k < model.outputs.size(); ++k) {
      client::AppendFrame(kRawOutputTag, form.tensor_bytes, &framing);
      form.framing.emplace_back(framing);
      framing.clear();
    }
    forms_.push_back(std::move(form));
  }
}

const EchoAnswers::Form* EchoAnswers::FindForm(size_t message_bytes) const {
  const Form* best = nullptr;
  for (const Form& form : forms_) {
    const bool fits =
        form.input_bytes <= message_bytes && message_bytes - form.input_bytes <= kMaxEnvelopeBytes;
    if (fits && (best == nullptr || form.input_bytes > best->input_bytes)) best = &form;
  }
  return best;
}

bool EchoAnswers::Answer(grpc::ByteBuffer* request, grpc::ByteBuffer* answer) const {
  const Form* form = FindForm(request->Length());
  if (form == nullptr) return false;
  const grpc::Slice copy = form->pool->Take();
  Copy(request, const_cast<uint8_t*>(copy.begin()));
  request->Clear();
  std::array<grpc::Slice, kMaxSlices> slices;
  size_t num_slices = 0;
  size_t offset = 0;
  for (const grpc::Slice& framing : form->framing) {
    slices[num_slices++] = framing;
    slices[num_slices++] = copy.sub(offset, offset + form->tensor_bytes);
    offset += form->tensor_bytes;
  }
  grpc::ByteBuffer(slices.data(), num_slices).Swap(answer);
  return true;
}

}  // namespace swiglu::bench
