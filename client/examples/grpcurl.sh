#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Example: a server asked with grpcurl, `grpcurl.sh HOST:PORT`. The server needs --reflection; without it, grpcurl has to be given
# the protocol files: `-import-path proto -proto inference.proto -proto health.proto`.
set -euo pipefail
server=$1

# Is it healthy? Also of one service; `liveness` is another one.
grpcurl -plaintext "$server" grpc.health.v1.Health/Check
grpcurl -plaintext -d '{"service": "inference.GRPCInferenceService"}' "$server" grpc.health.v1.Health/Check

# What does it offer, and which tensors has a model?
grpcurl -plaintext "$server" list
grpcurl -plaintext -d '{"name": "swiglu_forward_fp32"}' "$server" inference.GRPCInferenceService/ModelMetadata

# h = SiLU(e) * g of e = [0, 1, 2, -1] and g = [1, 1, 2, 2]. Raw bytes are base64 in JSON.
grpcurl -plaintext -max-time 10 -d @ "$server" inference.GRPCInferenceService/ModelInfer <<'JSON'
{
  "model_name": "swiglu_forward_fp32",
  "inputs": [
    {"name": "e", "datatype": "FP32", "shape": [4]},
    {"name": "g", "datatype": "FP32", "shape": [4]}
  ],
  "raw_input_contents": ["AAAAAAAAgD8AAABAAACAvw==", "AACAPwAAgD8AAABAAAAAQA=="]
}
JSON
