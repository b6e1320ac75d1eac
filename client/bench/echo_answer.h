// SPDX-License-Identifier: Apache-2.0
//
// How the echo server answers a message. It copies the message's bytes once, and makes the answer
// from the copy. The answer has the form and the size of a real answer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "client/bench/model.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/slice.h"

namespace swiglu::bench {

// Buffers of one size that are used again and again. The echo copies requests into them, and lends
// them to gRPC as slices of its answers.
//
// Thread-safe. Users and slices own the pool through shared pointers. So the pool lives until its
// last user and its last slice are gone. It keeps as many buffers as were ever in use at once.
class BufferPool : public std::enable_shared_from_this<BufferPool> {
 public:
  // A pool of buffers of `size_bytes`, 1 or more.
  static std::shared_ptr<BufferPool> Create(size_t size_bytes);

  size_t size_bytes() const { return size_bytes_; }

  // A slice over a whole buffer. The caller may write its bytes until the slice is sent. The buffer
  // comes back when gRPC has let go of the slice and all parts of it.
  grpc::Slice Take();

 private:
  struct Buffer {
    std::shared_ptr<BufferPool> home;  // the pool, while the buffer is in use
    std::unique_ptr<std::byte[]> bytes;
  };

  explicit BufferPool(size_t size_bytes) : size_bytes_(size_bytes) {}

  static void TakeBack(void* buffer);
  std::unique_ptr<Buffer> TakeIdle();

  const size_t size_bytes_;
  absl::Mutex mutex_;
  std::vector<std::unique_ptr<Buffer>> idle_ ABSL_GUARDED_BY(mutex_);
};

// Answers requests of certain sizes with ModelInferResponses. All tensors have rank 1. The tensors
// of an answer hold arbitrary bytes of the request. Thread-safe.
class EchoAnswers {
 public:
  // Answers requests whose inputs have one of the sizes in `request_bytes`. REQUIRES: each of these
  // sizes has room for one element of every input.
  EchoAnswers(const Model& model, const std::vector<int64_t>& request_bytes);

  // Copies `request`, clears it, and sets `answer` from the copy. If the size of `request` fits
  // none of the sizes given at construction, returns false and changes nothing.
  bool Answer(grpc::ByteBuffer* request, grpc::ByteBuffer* answer) const;

 private:
  // What is needed to answer requests of one size.
  struct Form {
    size_t input_bytes;
    size_t tensor_bytes;
    std::vector<grpc::Slice> framing;  // the encoded bytes before each output's bytes
    std::shared_ptr<BufferPool> pool;
  };

  const Form* FindForm(size_t message_bytes) const;

  std::vector<Form> forms_;
};

}  // namespace swiglu::bench
