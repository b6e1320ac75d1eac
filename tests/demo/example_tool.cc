// SPDX-License-Identifier: Apache-2.0
//
// The demonstration's own tool: makes the example inputs as files, and compares what came back with
// the contract, evaluated in float64. It knows nothing of the server, the client or the kernels.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <numbers>
#include <span>
#include <string>
#include <vector>

#include "tests/demo/evaluation.h"
#include "tests/demo/tensor_file.h"

namespace swiglu::demo {
namespace {

// Values of N(0,1) by Box and Muller's method over a SplitMix64 sequence; the same for the same
// seed everywhere.
std::vector<uint16_t> NormalValues(uint64_t seed, int64_t num_values) {
  uint64_t state = seed << 40;
  const auto uniform = [&state] {  // in (0, 1]
    uint64_t z = state += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return static_cast<double>(((z ^ z >> 31) >> 11) + 1) * 0x1p-53;
  };
  std::vector<uint16_t> values(num_values);
  for (int64_t i = 0; i < num_values; i += 2) {
    const double radius = std::sqrt(-2.0 * std::log(uniform()));
    const double angle = 2.0 * std::numbers::pi * uniform();
    values[i] = Narrow(kFp16, radius * std::cos(angle));
    if (i + 1 < num_values) values[i + 1] = Narrow(kFp16, radius * std::sin(angle));
  }
  return values;
}

// Writes the inputs of the two examples into `folder`: `rows` of 11008, for forward in two halves.
int Make(const std::string& folder, int64_t rows) {
  const int64_t num_values = rows * 11008;
  const std::vector<int64_t> forward_shape = {2, rows / 2, 11008};
  const std::vector<int64_t> backward_shape = {rows, 11008};
  WriteNpy(folder + "/forward_e.npy", forward_shape, NormalValues(1, num_values));
  WriteNpy(folder + "/forward_g.npy", forward_shape, NormalValues(2, num_values));
  WriteNpy(folder + "/backward_dw.npy", backward_shape, NormalValues(3, num_values));
  WriteNpy(folder + "/backward_e.npy", backward_shape, NormalValues(4, num_values));
  WriteNpy(folder + "/backward_g.npy", backward_shape, NormalValues(5, num_values));
  return 0;
}

// Compares the result files with the inputs: 3 names (e g h) are a forward, 6 (dw e g h df de) a
// backward.
int Check(std::span<char* const> names) {
  std::vector<FileTensor> tensors;
  for (const char* name : names) tensors.push_back(ReadTensor(name));
  for (const FileTensor& tensor : tensors) {
    if (tensor.shape != tensors[0].shape ||
        tensor.format.mantissa_bits != tensors[0].format.mantissa_bits) {
      std::printf("the files differ in dtype or shape\n");
      return 1;
    }
  }
  const Contract contract(tensors[0].format);
  Verdict verdict;
  for (size_t i = 0; i < tensors[0].values.size(); ++i) {
    const auto at = [&tensors, i](int k) { return tensors[k].values[i]; };
    if (names.size() == 3) {
      contract.CheckForward(at(0), at(1), at(2), verdict);
    } else {
      contract.CheckBackward(at(0), at(1), at(2), at(3), at(4), at(5), verdict);
    }
  }
  if (!verdict.ok()) {
    std::printf("WRONG: %lld values of %lld elements; %s\n",
                static_cast<long long>(verdict.num_wrong),
                static_cast<long long>(verdict.num_values), verdict.first_wrong.c_str());
    return 1;
  }
  std::printf("right: %lld elements against float64, %lld values 1 ulp of f or de away\n",
              static_cast<long long>(verdict.num_values),
              static_cast<long long>(verdict.num_differing));
  return 0;
}

int Main(std::span<char* const> arguments) {
  const std::string command = arguments.empty() ? "" : arguments[0];
  if (command == "make" && arguments.size() == 3)
    return Make(arguments[1], std::stoll(arguments[2]));
  if (command == "check" && (arguments.size() == 4 || arguments.size() == 7)) {
    return Check(arguments.subspan(1));
  }
  std::fprintf(stderr,
               "usage: swiglu_example_tool make FOLDER ROWS\n"
               "       swiglu_example_tool check E G H\n"
               "       swiglu_example_tool check DW E G H DF DE\n");
  return 2;
}

}  // namespace
}  // namespace swiglu::demo

int main(int argc, char** argv) {
  try {
    return swiglu::demo::Main(std::span(argv, argc).subspan(1));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
