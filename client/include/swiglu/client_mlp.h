// SPDX-License-Identifier: Apache-2.0
//
// SwiGLU MLPs that a server computes with weights of its own. A call sends the input of one layer,
// x, and gets its output, y. An example:
//
//   const Mlp mlp = client->Mlp("llama", 3);
//   const auto result = mlp.Forward({Dtype::kBf16, {8, 4096}, x_bytes});
//   ... result->y ...
//
// The server needs --mlp=llama=PATH.
#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "swiglu/client.h"
#include "swiglu/tensor.h"
#include "swiglu/tensor_place.h"

namespace swiglu::client {

// What `Mlp::Forward` returns.
struct MlpForwardResult {
  Tensor y;
  std::string weights_sha256;  // which weights computed it
};

// What `Mlp::Backward` returns.
struct MlpBackwardResult {
  Tensor dx;                   // the gradient with respect to x
  std::string weights_sha256;  // which weights computed it
};

// What `Mlp::Gradients` returns. The gradients of the matrices are sums over the tokens of the
// call, in FP32. I is the intermediate size.
struct MlpGradients {
  Tensor dx;
  Tensor d_gate_proj;  // [I, H]
  Tensor d_up_proj;    // [I, H]
  Tensor d_down_proj;  // [H, I]
  std::string weights_sha256;
};

// The memory that `Mlp::GradientsInto` writes to. The gradients of the matrices are FP32, and each
// has 4 * H * I bytes.
struct MlpGradientOutputs {
  OutputTensor dx;
  OutputTensor d_gate_proj;
  OutputTensor d_up_proj;
  OutputTensor d_down_proj;
};

// One layer of an MLP at the server. Client::Mlp makes it. It is a small value that can be copied,
// and shares the connection of its client. Thread-safe.
//
// Tensors have the shape [..., H], where H is the hidden size; a row of H elements is a token. The
// dtype is that of the weights, FP16 or BF16. `client->ModelMetadata(mlp.forward_model())` tells
// both.
//
// Calls have the options, the errors and the splitting of the calls of Client, with these
// differences:
// - An operation is split between rows.
// - NOT_FOUND if the server has no such MLP or layer.
// - INVALID_ARGUMENT also if x has rank 0, if its rows have no elements or another length than H,
//   or if its dtype is not that of the weights.
// - RESOURCE_EXHAUSTED, before anything is sent, also if a row does not fit into a message.
// - ABORTED if the server has changed the weights between the chunks of a split operation. The call
//   may be made again, unless its output lies over x: after any error, a part of x may be lost.
// - INTERNAL also if the server does not say which weights it used.
//
// The SHA-256 of the weights is that of the layer's matrices as they lie in the file: gate, up,
// down.
class Mlp {
 public:
  // Returns y = (SiLU(x Wg^T) * (x Wu^T)) Wd^T, with the dtype and the shape of x.
  absl::StatusOr<MlpForwardResult> Forward(const TensorView& x,
                                           const CallOptions& options = {}) const;
  Future<absl::StatusOr<MlpForwardResult>> ForwardAsync(const TensorView& x,
                                                        const CallOptions& options = {}) const;
  void ForwardAsync(const TensorView& x,
                    Client::Callback<absl::StatusOr<MlpForwardResult>> callback,
                    const CallOptions& options = {}) const;

  // Returns the gradient with respect to x. `dy` is the gradient with respect to y.
  absl::StatusOr<MlpBackwardResult> Backward(const TensorView& x, const TensorView& dy,
                                             const CallOptions& options = {}) const;
  Future<absl::StatusOr<MlpBackwardResult>> BackwardAsync(const TensorView& x, const TensorView& dy,
                                                          const CallOptions& options = {}) const;
  void BackwardAsync(const TensorView& x, const TensorView& dy,
                     Client::Callback<absl::StatusOr<MlpBackwardResult>> callback,
                     const CallOptions& options = {}) const;

  // Like `Forward` and `Backward`, but write the result to the caller's memory, which may be that
  // of x. Each tensor is in ordinary memory or in a region of shared memory (shared_memory.h).
  // Return the SHA-256 of the weights. On error the content of the output is unspecified.
  // INVALID_ARGUMENT also if the sizes of output and inputs differ, or for a part that is not
  // inside its region.
  absl::StatusOr<std::string> ForwardInto(const InputTensor& x, const OutputTensor& y,
                                          const CallOptions& options = {}) const;
  Future<absl::StatusOr<std::string>> ForwardIntoAsync(const InputTensor& x, const OutputTensor& y,
                                                       const CallOptions& options = {}) const;
  void ForwardIntoAsync(const InputTensor& x, const OutputTensor& y,
                        Client::Callback<absl::StatusOr<std::string>> callback,
                        const CallOptions& options = {}) const;
  absl::StatusOr<std::string> BackwardInto(const InputTensor& x, const InputTensor& dy,
                                           const OutputTensor& dx,
                                           const CallOptions& options = {}) const;
  Future<absl::StatusOr<std::string>> BackwardIntoAsync(const InputTensor& x, const InputTensor& dy,
                                                        const OutputTensor& dx,
                                                        const CallOptions& options = {}) const;
  void BackwardIntoAsync(const InputTensor& x, const InputTensor& dy, const OutputTensor& dx,
                         Client::Callback<absl::StatusOr<std::string>> callback,
                         const CallOptions& options = {}) const;

  // Like `Backward`, and also return the gradients with respect to the layer's matrices. The server
  // adds nothing up between calls. These calls are never split: RESOURCE_EXHAUSTED if the gradients
  // do not fit into a message; those in regions need no room there. A gradient of a matrix must not
  // overlap another tensor. `Gradients` first asks the server for the intermediate size, so it only
  // blocks. That call and the next one may take the whole timeout each.
  absl::StatusOr<MlpGradients> Gradients(const TensorView& x, const TensorView& dy,
                                         const CallOptions& options = {}) const;
  absl::StatusOr<std::string> GradientsInto(const InputTensor& x, const InputTensor& dy,
                                            const MlpGradientOutputs& outputs,
                                            const CallOptions& options = {}) const;
  Future<absl::StatusOr<std::string>> GradientsIntoAsync(const InputTensor& x,
                                                         const InputTensor& dy,
                                                         const MlpGradientOutputs& outputs,
                                                         const CallOptions& options = {}) const;
  void GradientsIntoAsync(const InputTensor& x, const InputTensor& dy,
                          const MlpGradientOutputs& outputs,
                          Client::Callback<absl::StatusOr<std::string>> callback,
                          const CallOptions& options = {}) const;

  // Make the checks that the calls make before they send anything.
  absl::Status CheckForward(const TensorView& x) const;
  absl::Status CheckBackward(const TensorView& x, const TensorView& dy) const;

  // The names of the layer's two models at the server.
  const std::string& forward_model() const { return forward_model_; }
  const std::string& backward_model() const { return backward_model_; }

 private:
  friend class Client;

  // `layer` is what the names of both models begin with.
  Mlp(CallTarget target, const std::string& layer)
      : target_(std::move(target)),
        forward_model_(layer + "_forward"),
        backward_model_(layer + "_backward") {}

  absl::StatusOr<int64_t> AskForIntermediateSize(const CallOptions& options) const;

  CallTarget target_;
  std::string forward_model_;
  std::string backward_model_;
};

}  // namespace swiglu::client
