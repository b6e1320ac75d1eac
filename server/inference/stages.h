// SPDX-License-Identifier: Apache-2.0
//
// The stages of a request's data: received → decoded → admitted. Each stage is complete when it is
// made, and owns the stage before it. running_request.h runs admitted requests.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/slice.h"
#include "server/batching/admission.h"
#include "server/batching/message_ledger.h"
#include "server/codec/infer_decoder.h"
#include "server/core/clock.h"
#include "server/inference/chunk_plan.h"
#include "server/inference/region_tensors.h"

namespace swiglu::server {

// A message that has arrived whole, with its charge. Move-only.
struct ReceivedMessage {
  // Takes the bytes out of `buffer`. `its_charge` is the charge that was reserved for the message;
  // it is empty if nothing was reserved.
  explicit ReceivedMessage(grpc::ByteBuffer& buffer, Charge its_charge = {})
      : size_bytes(static_cast<int64_t>(buffer.Length())), charge(std::move(its_charge)) {
    bytes.Swap(&buffer);
  }
  ReceivedMessage(ReceivedMessage&& other) noexcept
      : size_bytes(other.size_bytes),
        charge(std::move(other.charge)),
        slices(std::move(other.slices)),
        is_announced(other.is_announced),
        source(std::move(other.source)) {
    bytes.Swap(&other.bytes);  // gRPC has no move: it copies
  }

  // Frees the bytes and their charge.
  void Drop() {
    slices.clear();
    bytes.Clear();
    charge = Charge();
  }

  int64_t size_bytes;
  // The members are destroyed from the last to the first: the slices, the bytes, and then the
  // charge. So no byte exists without a charge.
  Charge charge;
  // Must be cleared after `slices`. When gRPC 1.51 frees memory, it reports this to its quota only
  // inside a certain context of the thread. Clearing a ByteBuffer sets up this context.
  grpc::ByteBuffer bytes;
  // The slices of `bytes`, once the message is decoded. They keep their addresses when the message
  // moves.
  std::vector<grpc::Slice> slices;
  bool is_announced = false;  // the client announced the size
  MessageSource source;
};

// A request that keeps every rule of the protocol.
struct DecodedRequest {
  ReceivedMessage message;
  InferPlan plan;     // its `sources` are no longer valid
  PlanReader inputs;  // reads the slices of `message`
  // nullptr: no tensor lies in a region.
  std::shared_ptr<RegionTensors> regions = nullptr;
};

// A request that the server has promised to run.
struct AdmittedRequest {
  DecodedRequest decoded;
  ChunkPlan chunks;
  SlotLayout slots;
  Clock::time_point deadline;
  Ticket ticket;
  bool is_alone;  // as in Request
};

}  // namespace swiglu::server
