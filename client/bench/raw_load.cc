// SPDX-License-Identifier: Apache-2.0
//
// Slots, each of which has one request under way at a time: in a closed loop the end of one starts
// the next, in an open one a thread of its own takes a free slot for every turn.
#include <chrono>
#include <deque>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/optional.h"
#include "client/bench/load.h"
#include "client/channel.h"
#include "client/infer_codec.h"
#include "client/outgoing_message.h"
#include "client/unary_call.h"
#include "grpcpp/client_context.h"
#include "grpcpp/generic/generic_stub.h"

namespace swiglu::bench {
namespace {

constexpr absl::Duration kConnectTimeout = absl::Seconds(10);

// A limit on what an answer has beside its tensors. A correct answer stays far below it.
constexpr size_t kMaxAnswerOverhead = size_t{64} << 10;

// Never destroyed, because gRPC may release slices after the load has ended.
client::Loan& ProcessLoan() {
  static auto& loan = *new client::Loan();
  return loan;
}

absl::Status ToStatus(const grpc::Status& status) {
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
}

// An encoded request of one size, with its announced size and its timeout.
struct EncodedRequest {
  grpc::ByteBuffer message;
  std::string size_text;
  absl::Duration timeout;
};

// A thread that takes answers, with its queue and its results.
struct Worker {
  explicit Worker(size_t num_sizes) : tally(num_sizes) {}

  // Each worker has framing and slices of its own. All workers share the tensors' bytes. Empty if
  // the tensors are in shared memory.
  std::vector<EncodedRequest> requests;
  grpc::CompletionQueue queue;
  Tally tally;
  std::thread thread;
};

// A place for one request at a time, bound to one connection and one worker.
struct Slot {
  Slot(int its_index, Worker* its_worker, grpc::GenericStub* its_stub, SizePicker its_sizes)
      : index(static_cast<size_t>(its_index)),
        worker(its_worker),
        stub(its_stub),
        sizes(std::move(its_sizes)) {}

  const size_t index;
  Worker* const worker;
  grpc::GenericStub* const stub;
  SizePicker sizes;
  std::vector<EncodedRequest> requests;  // with its own tensors, if they are in shared memory
  size_t num_sent = 0;

  // The request under way.
  Turn turn;
  size_t size = 0;
  size_t layer = 0;
  absl::optional<grpc::ClientContext> context;
  std::unique_ptr<grpc::GenericClientAsyncResponseReader> call;
  grpc::ByteBuffer answer;
  grpc::Status status;
};

class RawLoad final : public Load {
 public:
  RawLoad(const LoadOptions& options, const std::vector<RequestData>* data)
      : options_(options), data_(*data) {}

  absl::Status Connect() {
    for (int i = 0; i < options_.num_connections; ++i) {
      channels_.push_back(client::MakeChannel(options_.server, client::Credentials::Insecure()));
      stubs_.push_back(std::make_unique<grpc::GenericStub>(channels_.back()));
      channels_.back()->GetState(/*try_to_connect=*/true);
    }
    const auto deadline = absl::ToChronoTime(absl::Now() + kConnectTimeout);
    for (const auto& channel : channels_) {
      if (!channel->WaitForConnected(deadline)) {
        return absl::UnavailableError(absl::StrCat("no connection to ", options_.server));
      }
    }
    return absl::OkStatus();
  }

  void Start(Pace* pace) override {
    pace_ = pace;
    for (int i = 0; i < options_.num_threads; ++i) workers_.push_back(MakeWorker());
    for (int i = 0; i < options_.num_in_flight; ++i) {
      const int connection = i % options_.num_connections;
      slots_.emplace_back(i, workers_[connection % options_.num_threads].get(),
                          stubs_[connection].get(),
                          SizePicker(options_.request_bytes, static_cast<uint32_t>(i)));
      if (options_.shared_tensors != nullptr) slots_.back().requests = Encode(slots_.back().index);
      free_slots_.push_back(&slots_.back());
    }
    for (auto& worker : workers_) {
      worker->thread = std::thread([this, w = worker.get()] { TakeAnswers(*w); });
    }
    starter_ = std::thread([this] { StartRequests(); });
  }

  Tally Finish() override {
    starter_.join();
    {
      absl::MutexLock lock(&mutex_);
      mutex_.Await(absl::Condition(this, &RawLoad::AllAreFree));
    }
    Tally tally(data_.size());
    for (auto& worker : workers_) {
      worker->queue.Shutdown();
      worker->thread.join();
      tally.Merge(worker->tally);
    }
    return tally;
  }

 private:
  std::unique_ptr<Worker> MakeWorker() const {
    auto worker = std::make_unique<Worker>(data_.size());
    if (options_.shared_tensors == nullptr) worker->requests = Encode(0);
    return worker;
  }

  // For each layer, a request of each size, with the tensors of that set if they are in shared
  // memory.
  std::vector<EncodedRequest> Encode(size_t set) const {
    std::vector<EncodedRequest> requests;
    for (size_t layer = 0; layer < options_.model->names.size(); ++layer) {
      for (const RequestData& data : data_) {
        const client::OutgoingMessage message =
            client::EncodeInferRequest(options_.shared_tensors != nullptr
                                           ? options_.shared_tensors->ToInference(set, layer, data)
                                           : data.ToInference(layer),
                                       {}, &ProcessLoan());
        requests.push_back({{message.slices.data(), message.slices.size()},
                            absl::StrCat(message.size_bytes),
                            RequestTimeout(options_, data)});
      }
    }
    return requests;
  }

  // In an open loop, gives turns to free slots while there are turns. In a closed loop, gives each
  // slot its first turn; after that, TakeAnswers starts the slot's next requests.
  void StartRequests() {
    for (int i = 0; !pace_->is_closed_loop() || i < options_.num_in_flight; ++i) {
      Slot* const slot = TakeFreeSlot();
      const absl::optional<Turn> turn = pace_->Next();
      if (!turn) return GiveBack(slot);
      Send(*slot, *turn);
    }
  }

  void Send(Slot& slot, const Turn& turn) {
    slot.turn = turn;
    slot.size = slot.sizes.Pick();
    slot.layer = slot.num_sent++ % options_.model->names.size();
    const size_t index = slot.layer * data_.size() + slot.size;
    const EncodedRequest& request =
        slot.requests.empty() ? slot.worker->requests[index] : slot.requests[index];
    slot.context.emplace();
    slot.context->set_deadline(absl::ToChronoTime(absl::Now() + request.timeout));
    if (options_.announce_size)
      slot.context->AddMetadata(client::kRequestBytesKey, request.size_text);
    slot.call = slot.stub->PrepareUnaryCall(&*slot.context, client::kModelInfer, request.message,
                                            &slot.worker->queue);
    slot.call->StartCall();
    slot.call->Finish(&slot.answer, &slot.status, &slot);
  }

  void TakeAnswers(Worker& worker) {
    void* tag = nullptr;
    bool ok = false;
    const client::Wait wait = options_.spin ? client::Wait::kSpin : client::Wait::kSleep;
    while (client::NextEvent(worker.queue, wait, gpr_inf_future(GPR_CLOCK_MONOTONIC), &tag, &ok)) {
      Slot& slot = *static_cast<Slot*>(tag);
      Count(slot);
      Clear(slot);
      absl::optional<Turn> turn;
      if (pace_->is_closed_loop()) turn = pace_->Next();
      turn ? Send(slot, *turn) : GiveBack(&slot);
    }
  }

  void Count(const Slot& slot) {
    const Clock::time_point done = Clock::now();
    const RequestData& data = data_[slot.size];
    const absl::Status status = CheckAnswer(slot, data);
    if (options_.shared_tensors != nullptr) {
      options_.shared_tensors->Finish(slot.index, slot.layer, data, status);
    }
    if (!pace_->Counts(slot.turn, done)) return;
    slot.worker->tally.Record(slot.size, data, slot.turn, done, status);
  }

  absl::Status CheckAnswer(const Slot& slot, const RequestData& data) const {
    if (!slot.status.ok()) return ToStatus(slot.status);
    const size_t expected =
        options_.shared_tensors != nullptr ? 0 : static_cast<size_t>(data.output_bytes());
    const size_t size = slot.answer.Length();
    if (size >= expected && size <= expected + kMaxAnswerOverhead) return Compare(slot);
    return absl::InternalError(
        absl::StrCat("the answer has ", size, " bytes; its tensors need ", expected));
  }

  // Equal requests have answers that are equal in all their bytes.
  absl::Status Compare(const Slot& slot) const {
    if (options_.first_answers == nullptr) return absl::OkStatus();
    std::vector<grpc::Slice> slices;
    if (!slot.answer.Dump(&slices).ok()) return absl::InternalError("the answer cannot be read");
    std::string bytes;
    for (const grpc::Slice& slice : slices) {
      bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
    }
    return options_.first_answers->Compare(slot.size, slot.layer, bytes);
  }

  static void Clear(Slot& slot) {
    slot.call.reset();
    slot.context.reset();
    slot.answer.Clear();
    slot.status = grpc::Status();
  }

  Slot* TakeFreeSlot() {
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(this, &RawLoad::OneIsFree));
    Slot* slot = free_slots_.front();
    free_slots_.pop_front();
    return slot;
  }

  void GiveBack(Slot* slot) {
    absl::MutexLock lock(&mutex_);
    free_slots_.push_back(slot);
  }

  bool OneIsFree() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return !free_slots_.empty(); }
  bool AllAreFree() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return free_slots_.size() == slots_.size();
  }

  const LoadOptions options_;
  const std::vector<RequestData>& data_;
  Pace* pace_ = nullptr;
  std::vector<std::shared_ptr<grpc::Channel>> channels_;
  std::vector<std::unique_ptr<grpc::GenericStub>> stubs_;
  std::vector<std::unique_ptr<Worker>> workers_;
  std::deque<Slot> slots_;
  std::thread starter_;

  absl::Mutex mutex_;
  std::deque<Slot*> free_slots_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace

absl::StatusOr<std::unique_ptr<Load>> ConnectRawLoad(const LoadOptions& options,
                                                     const std::vector<RequestData>* data) {
  auto load = std::make_unique<RawLoad>(options, data);
  const absl::Status status = load->Connect();
  if (!status.ok()) return status;
  return load;
}

}  // namespace swiglu::bench
