#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# Example: BF16 as raw bytes, with the protocol's messages that the stock client brings. It works with every release of the client,
# and no value is converted. `python3 raw_bytes.py HOST:PORT` ends with 0 if the answer is what numpy computes. It needs ml_dtypes,
# numpy and tritonclient[grpc].
import sys

import grpc
import ml_dtypes
import numpy as np
from tritonclient.grpc import service_pb2, service_pb2_grpc

# By default gRPC takes answers of at most 4 MiB; -1 means any size.
OPTIONS = [("grpc.max_receive_message_length", -1)]


def infer(stub, model, arrays, timeout=30):
    """The outputs by name, as BF16 arrays. `arrays` are the inputs by name. Raises grpc.RpcError with the server's code."""
    request = service_pb2.ModelInferRequest(model_name=model)
    for name, array in arrays.items():
        request.inputs.add(name=name, datatype="BF16", shape=array.shape)
        request.raw_input_contents.append(array.tobytes())
    response = stub.ModelInfer(request, timeout=timeout)
    return {output.name: np.frombuffer(raw, ml_dtypes.bfloat16).reshape(output.shape)
            for output, raw in zip(response.outputs, response.raw_output_contents)}


def main(address):
    source = np.random.default_rng(5)
    e, g = (source.normal(0, 2, (4, 1000)).astype(ml_dtypes.bfloat16) for _ in range(2))
    with grpc.insecure_channel(address, OPTIONS) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        h = infer(stub, "swiglu_forward_bf16", {"e": e, "g": g})["h"]

    wide = e.astype(np.float64)
    f = (wide / (1 + np.exp(-wide))).astype(ml_dtypes.bfloat16)
    expected = f.astype(np.float64) * g.astype(np.float64)
    if h.shape != e.shape or not np.allclose(h.astype(np.float64), expected, rtol=2e-2, atol=1e-6):
        sys.exit("wrong: h is not what numpy computes")
    print(f"raw_bytes.py: {h.size} elements are right")


if __name__ == "__main__":
    main(*sys.argv[1:])
