// SPDX-License-Identifier: Apache-2.0
//
// The program swiglu-server: serves on the CPU or on CUDA devices.
#include "server/device/device_factory.h"
#include "server/program.h"

int main(int argc, char** argv) {
  return swiglu::server::RunProgram(argc, argv, swiglu::server::CreateExecutor);
}
