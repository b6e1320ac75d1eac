// SPDX-License-Identifier: Apache-2.0
//
// From files through pinned memory to devices. While one portion is on its way to the devices, the
// next one is read.
#include "server/device/cuda_weights.h"

#include <algorithm>
#include <array>
#include <span>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "server/gpu/cuda_status.h"
#include "server/log/log.h"

namespace swiglu::server {
namespace {

// A portion has 8 rows of gate or up at least, and the longest row has 2 MiB.
constexpr int64_t kPortionBytes = int64_t{16} << 20;
constexpr int64_t kGroupRows = 8;
static_assert(kGroupRows * swiglu::kMaxMlpSize * 2 <= kPortionBytes);

// A device while a layer is copied to it.
struct Target {
  int ordinal = 0;
  CudaMemory memory;
  CudaStream stream;
  // Recorded behind the copies out of each of the two buffers.
  std::array<CudaEvent, 2> copied;
};

// The error for a device that has no room for `purpose`.
absl::Status NoRoom(int ordinal, absl::string_view purpose, int64_t needed_bytes) {
  size_t free_bytes = 0;
  size_t total_bytes = 0;
  const bool is_known = cudaMemGetInfo(&free_bytes, &total_bytes) == cudaSuccess;
  cudaGetLastError();
  return absl::ResourceExhaustedError(absl::StrCat(
      "no room on device ", ordinal, " ", purpose, ": ", needed_bytes, " bytes are needed",
      is_known ? absl::StrCat(", and ", free_bytes, " of ", total_bytes, " are free") : ""));
}

absl::StatusOr<Target> MakeTarget(const MlpLayer& layer, int ordinal) {
  absl::StatusOr<CudaMemory> memory =
      MakeCudaMemory(ordinal, static_cast<size_t>(layer.size_bytes()));
  if (absl::IsResourceExhausted(memory.status())) {
    return NoRoom(ordinal, absl::StrCat("for the weights of layer ", layer.number),
                  layer.size_bytes());
  }
  if (!memory.ok()) return memory.status();
  absl::StatusOr<CudaStream> stream = MakeCudaStream(ordinal);
  if (!stream.ok()) return stream.status();
  Target target{ordinal, *std::move(memory), *std::move(stream), {}};
  for (CudaEvent& event : target.copied) {
    absl::StatusOr<CudaEvent> made = MakeCudaEvent(ordinal, CudaEventKind::kWaiting);
    if (!made.ok()) return made.status();
    event = *std::move(made);
  }
  return target;
}

// Consecutive bytes of one matrix of a layer.
struct WeightsPortion {
  size_t matrix = 0;       // gate, up or down, in this order
  int64_t first_byte = 0;  // in the matrix
  std::span<const std::byte> bytes;
};

cudaError_t CopyPortion(const MlpLayer& layer, const WeightsPortion& portion,
                        const Target& target) {
  std::byte* const to = target.memory.get();
  const auto size_bytes = static_cast<int64_t>(portion.bytes.size());
  if (portion.matrix == 2) {
    return cudaMemcpyAsync(to + 2 * layer.matrix_bytes() + portion.first_byte, portion.bytes.data(),
                           portion.bytes.size(), cudaMemcpyHostToDevice, target.stream.get());
  }
  const int64_t row_bytes = layer.hidden * ElementBytes(layer.dtype);
  return swiglu::CopyGateUpCuda(
      {portion.matrix == 0 ? swiglu::MlpMatrix::kGate : swiglu::MlpMatrix::kUp, layer.hidden,
       portion.first_byte / row_bytes, size_bytes / row_bytes, portion.bytes.data()},
      to, target.stream.get());
}

// Copies portions of a layer to all of its devices.
class LayerCopier {
 public:
  LayerCopier(const MlpLayer& layer, std::vector<Target> targets, CudaHostMemory buffers)
      : layer_(layer), targets_(std::move(targets)), buffers_(std::move(buffers)) {}

  // The copies out of the buffers must not outlive these.
  ~LayerCopier() {
    for (const Target& target : targets_) cudaStreamSynchronize(target.stream.get());
    cudaGetLastError();
  }
  LayerCopier(const LayerCopier&) = delete;
  LayerCopier& operator=(const LayerCopier&) = delete;

  // The next buffer of kPortionBytes, once no copy reads it any more.
  absl::StatusOr<std::span<std::byte>> NextBuffer() {
    next_ = 1 - next_;
    for (const Target& target : targets_) {
      const cudaError_t error = cudaEventSynchronize(target.copied[next_].get());
      if (error != cudaSuccess) return CudaStatus(error, target.ordinal);
    }
    return std::span<std::byte>(buffers_.get() + next_ * kPortionBytes, kPortionBytes);
  }

  // Enqueues the copies of `portion`, which is in the buffer that NextBuffer returned last.
  absl::Status Copy(const WeightsPortion& portion) {
    for (const Target& target : targets_) {
      if (absl::Status status = UseCudaDevice(target.ordinal); !status.ok()) return status;
      cudaError_t error = CopyPortion(layer_, portion, target);
      if (error == cudaSuccess) {
        error = cudaEventRecord(target.copied[next_].get(), target.stream.get());
      }
      if (error != cudaSuccess) return CudaStatus(error, target.ordinal);
    }
    return absl::OkStatus();
  }

  // Waits for all copies, and gives up the memory that they filled.
  absl::StatusOr<std::vector<CudaWeights::Copy>> Finish() {
    for (const Target& target : targets_) {
      const cudaError_t error = cudaStreamSynchronize(target.stream.get());
      if (error != cudaSuccess) return CudaStatus(error, target.ordinal);
    }
    std::vector<CudaWeights::Copy> copies;
    for (Target& target : targets_) copies.push_back({target.ordinal, std::move(target.memory)});
    return copies;
  }

 private:
  const MlpLayer& layer_;
  std::vector<Target> targets_;
  const CudaHostMemory buffers_;
  size_t next_ = 0;  // the buffer in use
};

// Reads all matrices and hands them to the copier.
absl::Status CopyLayer(const MlpLayer& layer, LayerReader& reader, LayerCopier& copier,
                       absl::FunctionRef<absl::Status(int64_t)> on_progress) {
  const int64_t group_bytes = kGroupRows * layer.hidden * ElementBytes(layer.dtype);
  const int64_t most_bytes = kPortionBytes / group_bytes * group_bytes;
  for (size_t matrix = 0; matrix < kNumMlpMatrices; ++matrix) {
    for (int64_t first = 0; first < layer.matrix_bytes();) {
      absl::StatusOr<std::span<std::byte>> buffer = copier.NextBuffer();
      if (!buffer.ok()) return buffer.status();
      const int64_t wanted = std::min(most_bytes, layer.matrix_bytes() - first);
      const std::span<std::byte> to = buffer->first(static_cast<size_t>(wanted));
      absl::StatusOr<size_t> num_read = reader.Read(to);
      if (!num_read.ok()) return num_read.status();
      CHECK(static_cast<int64_t>(*num_read) == wanted);
      if (absl::Status status = copier.Copy({matrix, first, to}); !status.ok()) return status;
      if (absl::Status status = on_progress(reader.bytes_read()); !status.ok()) return status;
      first += wanted;
    }
  }
  return absl::OkStatus();
}

// Numbers of tokens with which all kernels for up to `max_tokens` tokens run.
std::vector<int64_t> WarmUpSizes(int64_t max_tokens) {
  std::vector<int64_t> sizes = {1};
  for (int64_t tokens = 16; tokens < max_tokens; tokens += std::max<int64_t>(16, tokens / 4)) {
    sizes.push_back(tokens);
  }
  sizes.push_back(max_tokens);
  return sizes;
}

}  // namespace

CudaWeights::CudaWeights(const MlpLayer& layer, std::vector<Copy> copies, std::string sha256)
    : Weights(std::move(sha256),
              [&] {
                std::vector<WeightsPlace> places;
                for (const Copy& copy : copies)
                  places.push_back({copy.ordinal, layer.size_bytes()});
                return places;
              }()),
      dtype_(layer.dtype),
      hidden_(layer.hidden),
      intermediate_(layer.intermediate),
      copies_(std::move(copies)) {}

swiglu::CudaMlpWeights CudaWeights::On(int ordinal) const {
  const auto found = std::find_if(copies_.begin(), copies_.end(),
                                  [ordinal](const Copy& copy) { return copy.ordinal == ordinal; });
  CHECK(found != copies_.end());
  const std::byte* const gate_up = found->memory.get();
  const int64_t gate_up_bytes = 2 * hidden_ * intermediate_ * ElementBytes(dtype_);
  return {dtype_, hidden_, intermediate_, gate_up, gate_up + gate_up_bytes};
}

CudaWeightsLoader::CudaWeightsLoader(std::vector<int> ordinals, int num_replicas,
                                     int64_t max_tokens)
    : max_tokens_(max_tokens), placement_(std::move(ordinals), num_replicas) {}

absl::StatusOr<std::shared_ptr<const Weights>> CudaWeightsLoader::Load(
    const MlpFiles& files, size_t index, const Weights* current,
    absl::FunctionRef<absl::Status(int64_t)> on_progress) {
  const MlpLayer& layer = files.layers()[index];
  std::vector<int> ordinals;
  if (current == nullptr) {
    ordinals = placement_.Place(layer.size_bytes());
  } else {
    for (const WeightsPlace& place : current->places()) ordinals.push_back(place.device);
  }
  std::vector<Target> targets;
  for (const int ordinal : ordinals) {
    absl::StatusOr<Target> target = MakeTarget(layer, ordinal);
    if (!target.ok()) return target.status();
    targets.push_back(*std::move(target));
  }
  absl::StatusOr<CudaHostMemory> buffers = MakeCudaHostMemory(ordinals.front(), 2 * kPortionBytes);
  if (!buffers.ok()) return buffers.status();

  absl::StatusOr<LayerReader> reader = files.StartReading(index);
  if (!reader.ok()) return reader.status();
  LayerCopier copier(layer, std::move(targets), *std::move(buffers));
  absl::Status status = CopyLayer(layer, *reader, copier, on_progress);
  if (!status.ok()) return status;
  absl::StatusOr<std::vector<CudaWeights::Copy>> copies = copier.Finish();
  if (!copies.ok()) return copies.status();
  absl::StatusOr<std::string> sha256 = reader->Finish();
  if (!sha256.ok()) return sha256.status();

  auto weights = std::make_shared<const CudaWeights>(layer, *std::move(copies), *std::move(sha256));
  for (const int ordinal : ordinals) {
    if (!IsFirst({ordinal, layer.dtype, layer.hidden, layer.intermediate})) continue;
    status = WarmUpOn(ordinal, *weights);
    if (!status.ok()) return status;
  }
  return weights;
}

bool CudaWeightsLoader::IsFirst(const Shape& shape) {
  absl::MutexLock lock(&mutex_);
  return warm_.insert(shape).second;
}

absl::Status CudaWeightsLoader::WarmUpOn(int ordinal, const CudaWeights& loaded) {
  const swiglu::CudaMlpWeights weights = loaded.On(ordinal);
  const int64_t workspace_bytes = swiglu::MlpBackwardWorkspaceBytes(weights, max_tokens_);
  const int64_t tensor_bytes = max_tokens_ * weights.hidden * ElementBytes(weights.dtype);
  const int64_t needed_bytes = workspace_bytes + 3 * tensor_bytes;
  absl::StatusOr<CudaMemory> memory = MakeCudaMemory(ordinal, static_cast<size_t>(needed_bytes));
  if (absl::IsResourceExhausted(memory.status())) {
    return NoRoom(ordinal, "to try the weights of a layer", needed_bytes);
  }
  if (!memory.ok()) return memory.status();
  absl::StatusOr<CudaStream> stream = MakeCudaStream(ordinal);
  if (!stream.ok()) return stream.status();

  std::byte* const workspace = memory->get();
  std::byte* const x = workspace + workspace_bytes;
  std::byte* const dy = x + tensor_bytes;
  std::byte* const out = dy + tensor_bytes;
  cudaError_t error = cudaMemsetAsync(x, 0, static_cast<size_t>(2 * tensor_bytes), stream->get());
  for (const int64_t tokens : WarmUpSizes(max_tokens_)) {
    if (error == cudaSuccess) {
      error = swiglu::MlpForwardCuda(weights, {x, out, tokens, workspace, workspace_bytes},
                                     swiglu::MlpPath::kAuto, stream->get());
    }
    if (error == cudaSuccess) {
      error = swiglu::MlpBackwardCuda(weights, {x, dy, out, tokens, workspace, workspace_bytes},
                                      swiglu::MlpPath::kAuto, stream->get());
    }
  }
  if (error == cudaSuccess) error = cudaStreamSynchronize(stream->get());
  return CudaStatus(error, ordinal);
}

}  // namespace swiglu::server
