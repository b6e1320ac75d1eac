// SPDX-License-Identifier: Apache-2.0
//
// How a request is cut into chunks, and how a chunk's tensors lie in a slab. Pure functions.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "server/core/model.h"

namespace swiglu::server {

// How a request is cut: the last chunk has `last_elements`, all others have `chunk_elements`.
struct ChunkPlan {
  int64_t num_chunks = 1;
  int64_t chunk_elements = 0;
  int64_t last_elements = 0;

  // Elements of each tensor in chunk number `chunk`.
  int64_t num_elements(int64_t chunk) const {
    return chunk + 1 < num_chunks ? chunk_elements : last_elements;
  }
};

// Cuts `num_elements` at multiples of `CutElements`: between rows, and at aligned places. A chunk's
// inputs have at most `max_batch_bytes`, unless that is too little for the shortest chunk.
ChunkPlan PlanChunks(const Model& model, int64_t num_elements, int64_t max_batch_bytes);

// Which tensors have a place in a chunk's slab. The server computes in place: place k is for input
// k and then for output k. An executor that reads the inputs from the message needs places only for
// the outputs. A tensor in a region needs no place.
struct SlotLayout {
  std::array<int8_t, kMaxTensors> slots{-1, -1, -1};  // by k; negative: no place k
  int num_slots = 0;
  // Behind these places: where the gradients of weights begin, each in bytes behind the last place,
  // in the order of Model::gradients; negative: no place.
  std::array<int64_t, kMaxGradients> gradients{-1, -1, -1};
  int64_t gradient_bytes = 0;  // of all gradients that have a place
};

// `computed`: the outputs that the request needs. `inputs` and `outputs`: the addresses of the
// tensors in regions, the outputs by number; nullptr for the other tensors.
SlotLayout PlanSlots(const Model& model, const OutputSet& computed, bool takes_readers,
                     const std::array<std::byte*, kMaxTensors>& inputs,
                     const std::array<std::byte*, kMaxOutputs>& outputs);

// The bytes that a tensor of `num_elements` takes in a slab, rounded up so that the next tensor is
// aligned.
size_t SlotBytes(const Model& model, int64_t num_elements);

// The bytes of the slab of a chunk of `num_elements`.
size_t ChunkSlabBytes(const Model& model, const SlotLayout& slots, int64_t num_elements);

}  // namespace swiglu::server
