// SPDX-License-Identifier: Apache-2.0
//
// A map of mappings.
#include "tests/client/fake_regions.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>

#include "absl/strings/str_cat.h"

namespace swiglu::client {
namespace {

FakeReply Refuse(grpc::StatusCode code, const std::string& message) {
  FakeReply reply;
  reply.status = grpc::Status(code, message);
  return reply;
}

template <typename Request>
Request Parse(const std::string& message) {
  Request request;
  request.ParseFromString(message);
  return request;
}

}  // namespace

FakeRegions::~FakeRegions() { Unregister(""); }

FakeReply FakeRegions::Answer(const FakeCall& call) {
  absl::MutexLock lock(&mutex_);
  methods_.push_back(call.method);
  if (call.method == "SystemSharedMemoryRegister") {
    return Register(Parse<inference::SystemSharedMemoryRegisterRequest>(call.message));
  }
  if (call.method == "SystemSharedMemoryUnregister") {
    return Unregister(Parse<inference::SystemSharedMemoryUnregisterRequest>(call.message).name());
  }
  if (call.method == "SystemSharedMemoryStatus") return List();
  if (call.method == "ModelInfer") {
    last_infer_ = Parse<inference::ModelInferRequest>(call.message);
    return Infer();
  }
  if (call.method == "ServerReady") {
    inference::ServerReadyResponse response;
    response.set_ready(true);
    return client::Answer(response);
  }
  return Refuse(grpc::StatusCode::UNIMPLEMENTED,
                absl::StrCat(call.method, ": this server takes no CUDA shared memory"));
}

FakeReply FakeRegions::Register(const inference::SystemSharedMemoryRegisterRequest& request) {
  if (regions_.count(request.name()) > 0) {
    return Refuse(grpc::StatusCode::ALREADY_EXISTS,
                  absl::StrCat("region '", request.name(), "' is registered already"));
  }
  const int fd = shm_open(request.key().c_str(), O_RDWR, 0);
  struct stat status = {};
  if (fd < 0 || fstat(fd, &status) != 0 ||
      static_cast<uint64_t>(status.st_size) < request.offset() + request.byte_size()) {
    if (fd >= 0) close(fd);
    return Refuse(grpc::StatusCode::INVALID_ARGUMENT,
                  absl::StrCat("region '", request.name(), "': key not allowed"));
  }
  last_mode_ = status.st_mode & 0777;
  void* const memory =
      mmap(nullptr, request.byte_size(), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  close(fd);
  regions_[request.name()] = {static_cast<std::byte*>(memory), request.byte_size()};
  return client::Answer(inference::SystemSharedMemoryRegisterResponse());
}

FakeReply FakeRegions::Unregister(const std::string& name) {
  for (auto region = regions_.begin(); region != regions_.end();) {
    if (!name.empty() && region->first != name) {
      ++region;
      continue;
    }
    munmap(region->second.data(), region->second.size());
    region = regions_.erase(region);
  }
  return client::Answer(inference::SystemSharedMemoryUnregisterResponse());
}

FakeReply FakeRegions::List() const {
  inference::SystemSharedMemoryStatusResponse response;
  for (const auto& [name, bytes] : regions_) {
    auto& region = (*response.mutable_regions())[name];
    region.set_name(name);
    region.set_byte_size(bytes.size());
  }
  return client::Answer(response);
}

absl::Span<std::byte> FakeRegions::Place(
    const google::protobuf::Map<std::string, inference::InferParameter>& parameters) {
  const auto number = [&](const char* name) {
    const auto found = parameters.find(name);
    return found == parameters.end() ? 0 : static_cast<size_t>(found->second.int64_param());
  };
  return regions_.at(parameters.at("shared_memory_region").string_param())
      .subspan(number("shared_memory_offset"), number("shared_memory_byte_size"));
}

// Output k is input k.
FakeReply FakeRegions::Infer() {
  std::vector<std::string> inputs;
  int num_raw = 0;
  for (const auto& input : last_infer_.inputs()) {
    if (input.parameters().empty()) {
      inputs.push_back(last_infer_.raw_input_contents(num_raw++));
    } else {
      const absl::Span<std::byte> place = Place(input.parameters());
      inputs.emplace_back(reinterpret_cast<const char*>(place.data()), place.size());
    }
  }
  inference::ModelInferRequest plain = last_infer_;
  plain.clear_raw_input_contents();
  for (const std::string& input : inputs) plain.add_raw_input_contents(input);
  inference::ModelInferResponse response = EchoInfer(plain);
  for (int k = 0; k < last_infer_.outputs_size(); ++k) {
    if (last_infer_.outputs(k).parameters().empty()) continue;
    const absl::Span<std::byte> place = Place(last_infer_.outputs(k).parameters());
    std::memcpy(place.data(), inputs[k].data(), inputs[k].size());
    response.set_raw_output_contents(k, "");
  }
  return client::Answer(response);
}

}  // namespace swiglu::client
