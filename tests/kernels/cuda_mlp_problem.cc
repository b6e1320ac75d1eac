// SPDX-License-Identifier: Apache-2.0
//
// Comparisons and paths for the tests of the MLP on CUDA.
#include "tests/kernels/cuda_mlp_problem.h"

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <string>

#include "swiglu/cuda_mlp.h"
#include "swiglu/dtype.h"
#include "tests/kernels/cuda_mlp_reference.h"
#include "tests/kernels/cuda_runner.h"

namespace swiglu::kernels {
namespace {

void ExpectNone(cudaError_t error, const MlpDifferences& differences, int64_t count,
                const std::string& what) {
  ASSERT_EQ(error, cudaSuccess) << what;
  EXPECT_EQ(differences.num_wrong, 0u) << what << ": " << differences.num_wrong << " of " << count
                                       << " elements, one of them at " << differences.first;
}

}  // namespace

void ExpectSame(Dtype dtype, const uint16_t* actual, const uint16_t* expected, int64_t count,
                const std::string& what) {
  MlpDifferences differences;
  const cudaError_t error = CompareMlp(dtype, actual, expected, count, differences);
  ExpectNone(error, differences, count, what);
}

void ExpectSame(const float* actual, const float* expected, int64_t count,
                const std::string& what) {
  MlpDifferences differences;
  const cudaError_t error = CompareMlp(actual, expected, count, differences);
  ExpectNone(error, differences, count, what);
}

std::string WhyNoMlpPath(MlpPath path) {
  if (const std::string missing = WhyNoCudaDevice(); !missing.empty()) return missing;
  int major = 0;
  EXPECT_EQ(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0), cudaSuccess);
  return path == MlpPath::kWgmma && major != 9 ? "no Hopper GPU" : "";
}

std::string NameOfMlpPath(const testing::TestParamInfo<MlpPath>& info) {
  return info.param == MlpPath::kAuto ? "Auto" : info.param == MlpPath::kMma ? "Mma" : "Wgmma";
}

}  // namespace swiglu::kernels
