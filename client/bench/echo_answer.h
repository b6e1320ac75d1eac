// SPDX-License-Identifier: Apache-2.0
//
// What the bare echo does with one message: one copy of its bytes, and an answer out of the copy
// that has the form and the size of the real one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "client/bench/buffer_pool.h"
#include "client/bench/model.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/slice.h"

namespace swiglu::bench {

// Answers requests of certain sizes, of rank 1, with ModelInferResponses whose tensors hold any
// bytes of the request. Thread-safe.
class EchoAnswers {
 public:
  // REQUIRES: every size, the bytes of a request's inputs, is enough for an element.
  EchoAnswers(const Model& model, const std::vector<int64_t>& request_bytes);

  // Copies `request`, lets it go, and sets `answer`, without another copy. False, and nothing is
  // touched, if no size fits.
  bool Answer(grpc::ByteBuffer* request, grpc::ByteBuffer* answer) const;

 private:
  // For requests of one size.
  struct Form {
    size_t input_bytes;
    size_t tensor_bytes;
    std::vector<grpc::Slice> framing;  // what comes before each output's bytes
    std::shared_ptr<BufferPool> pool;
  };

  const Form* FindForm(size_t message_bytes) const;

  std::vector<Form> forms_;
};

}  // namespace swiglu::bench
