// SPDX-License-Identifier: Apache-2.0
//
// How the bare echo answers a message: it copies the message's bytes once, and makes an answer from
// the copy. The answer has the form and the size of a real one.
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

// Answers requests of certain sizes with ModelInferResponses. All tensors have rank 1. The tensors
// of an answer hold arbitrary bytes of the request. Thread-safe.
class EchoAnswers {
 public:
  // REQUIRES: every entry of `request_bytes`, the size of a request's inputs, has room for an
  // element.
  EchoAnswers(const Model& model, const std::vector<int64_t>& request_bytes);

  // Copies `request`, releases it, and sets `answer` from that copy. Returns false, and touches
  // nothing, if the request has none of the sizes.
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
