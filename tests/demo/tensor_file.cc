// SPDX-License-Identifier: Apache-2.0
//
// Both formats are a length, a header in words and the values, little-endian, as this machine has
// them too.
#include "tests/demo/tensor_file.h"

#include <bit>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <numeric>
#include <regex>

namespace swiglu::demo {
namespace {

static_assert(std::endian::native == std::endian::little, "the files' byte order is the machine's");

int64_t NumElements(const std::vector<int64_t>& shape) {
  return std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
}

std::string ReadBytes(std::ifstream& file, const std::string& path, size_t num_bytes) {
  std::string bytes(num_bytes, '\0');
  if (!file.read(bytes.data(), static_cast<std::streamsize>(num_bytes))) {
    throw FileError(path + ": ends early");
  }
  return bytes;
}

void ReadValues(std::ifstream& file, const std::string& path, FileTensor& tensor) {
  tensor.values.resize(NumElements(tensor.shape));
  if (!file.read(reinterpret_cast<char*>(tensor.values.data()),
                 static_cast<std::streamsize>(tensor.values.size() * sizeof(uint16_t)))) {
    throw FileError(path + ": holds fewer values than its shape says");
  }
}

FileTensor ReadNpy(std::ifstream& file, const std::string& path) {
  const std::string start = ReadBytes(file, path, 10);
  const size_t header_bytes =
      static_cast<unsigned char>(start[8]) + 256 * static_cast<unsigned char>(start[9]);
  const std::string header = ReadBytes(file, path, header_bytes);
  std::smatch dims;
  if (start.compare(0, 8, std::string("\x93NUMPY\x01\x00", 8)) != 0 ||
      header.find("'<f2'") == std::string::npos ||
      header.find("'fortran_order': False") == std::string::npos ||
      !std::regex_search(header, dims, std::regex(R"('shape': \(([0-9, ]*)\))"))) {
    throw FileError(path + ": not an FP16 .npy file in C order");
  }
  FileTensor tensor{kFp16, {}, {}};
  const std::string list = dims[1];
  const std::regex number("[0-9]+");
  for (std::sregex_iterator dim(list.begin(), list.end(), number), end; dim != end; ++dim) {
    tensor.shape.push_back(std::stoll(dim->str()));
  }
  ReadValues(file, path, tensor);
  return tensor;
}

FileTensor ReadSafetensors(std::ifstream& file, const std::string& path, const std::string& name) {
  uint64_t header_bytes = 0;
  ReadBytes(file, path, sizeof(header_bytes)).copy(reinterpret_cast<char*>(&header_bytes), 8);
  if (header_bytes > 100'000'000) throw FileError(path + ": no .safetensors header");
  const auto header = nlohmann::json::parse(ReadBytes(file, path, header_bytes), nullptr, false);
  if (!header.is_object() || !header.contains(name)) {
    throw FileError(path + ": has no tensor '" + name + "'");
  }
  const auto& entry = header[name];
  const std::string dtype = entry["dtype"];
  if (dtype != "F16" && dtype != "BF16") throw FileError(path + ": '" + name + "' is " + dtype);
  FileTensor tensor{dtype == "F16" ? kFp16 : kBf16, entry["shape"], {}};
  file.seekg(entry["data_offsets"][0].get<std::streamoff>(), std::ios::cur);
  ReadValues(file, path, tensor);
  return tensor;
}

}  // namespace

FileTensor ReadTensor(const std::string& name) {
  const size_t colon = name.rfind(':');
  const std::string path = name.substr(0, colon);
  std::ifstream file(path, std::ios::binary);
  if (!file) throw FileError(path + ": cannot be opened");
  return colon == std::string::npos ? ReadNpy(file, path)
                                    : ReadSafetensors(file, path, name.substr(colon + 1));
}

void WriteNpy(const std::string& path, const std::vector<int64_t>& shape,
              const std::vector<uint16_t>& values) {
  std::string header = "{'descr': '<f2', 'fortran_order': False, 'shape': (";
  for (const int64_t dim : shape) header += std::to_string(dim) + ", ";
  header += "), }";
  header.resize((10 + header.size() + 1 + 63) / 64 * 64 - 10 - 1, ' ');
  header += '\n';
  std::ofstream file(path, std::ios::binary);
  file << "\x93NUMPY" << '\x01' << '\x00' << static_cast<char>(header.size() % 256)
       << static_cast<char>(header.size() / 256) << header;
  file.write(reinterpret_cast<const char*>(values.data()),
             static_cast<std::streamsize>(values.size() * sizeof(uint16_t)));
  if (!file.flush()) throw FileError(path + ": cannot be written");
}

}  // namespace swiglu::demo
