// SPDX-License-Identifier: Apache-2.0
//
// The three tensors that backward returns, as an output of a call.
#pragma once

#include "absl/status/status.h"
#include "client/client_calls.h"
#include "client/infer_call.h"
#include "swiglu/client.h"

namespace swiglu::client {

// Gives the tensors of `result` the dtype and the shape of `like`.
inline absl::Status MakeResult(const TensorView& like, BackwardResult* result) {
  absl::Status status = MakeTensor("h", like.dtype, like.shape, &result->h);
  if (status.ok()) status = MakeTensor("df", like.dtype, like.shape, &result->df);
  if (status.ok()) status = MakeTensor("de", like.dtype, like.shape, &result->de);
  return status;
}

inline BackwardOutputs OutputsOf(BackwardResult& result) {
  return {result.h.mutable_bytes(), result.df.mutable_bytes(), result.de.mutable_bytes()};
}

// `Input` is a TensorView or an InputTensor.
template <typename Input, typename Outputs>
InferCall BackwardCall(const Input& dw, const Input& e, const Input& g, const Outputs& outputs) {
  return ElementwiseCall({{"DW", dw}, {"e", e}, {"g", g}},
                         {{"h", outputs.h}, {"df", outputs.df}, {"de", outputs.de}});
}

}  // namespace swiglu::client
