// SPDX-License-Identifier: Apache-2.0
//
// What a benchmark prints: a table of rows with one baseline each, as text or as JSON, under a head
// that says on what hardware and from which commit.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "swiglu/dtype.h"

namespace swiglu::bench {

enum class Op { kForward, kBackward };
inline constexpr Op kOps[] = {Op::kForward, Op::kBackward};
inline constexpr Dtype kDtypes[] = {Dtype::kFp16, Dtype::kBf16, Dtype::kFp32};

inline const char* Name(Op op) { return op == Op::kForward ? "forward" : "backward"; }
inline const char* Name(Dtype dtype) {
  constexpr const char* kNames[] = {"fp16", "bf16", "fp32"};
  return kNames[static_cast<int>(dtype)];
}

// Bytes that one call reads and writes: of 3 tensors, or of 6.
inline double BytesMoved(Op op, Dtype dtype, int64_t n) {
  return (op == Op::kForward ? 3.0 : 6.0) * static_cast<double>(n) *
         static_cast<double>(ElementBytes(dtype));
}

// One measured point.
struct Row {
  std::string section;  // which table it belongs to
  std::string op;       // forward, backward, or what else was timed
  std::string dtype;
  int64_t n = 0;          // elements of each tensor
  std::string note = "";  // what is special about it
  double us = 0;          // median time of one call
  double spread = 0;      // (third quartile - first quartile) / median of the times
  double gb_s = 0;        // bytes read and written per second
  std::string baseline = "";
  double ratio = 0;  // this row's speed over its baseline's, measured in the same run
};

// Collects rows, printing each as it comes.
class Report {
 public:
  // Facts about the run: GPU, driver, commit. Printed at once.
  void AddFact(const std::string& name, const std::string& value);
  void Add(const Row& row);
  // Writes everything as JSON. False, with a line on stderr, if the file cannot be written.
  bool WriteJson(const std::string& path) const;

 private:
  std::map<std::string, std::string> facts_;
  std::vector<Row> rows_;
};

// The median of `times`, and the distance of their quartiles as a share of it.
struct Summary {
  double median = 0;
  double spread = 0;
};
Summary Summarize(std::vector<double> times);

}  // namespace swiglu::bench
