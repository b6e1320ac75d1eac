#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# Example: BF16, which numpy itself does not have: the package ml_dtypes adds the type, and the stock client sends it.
# `python3 bf16.py HOST:PORT` ends with 0 if the answer is what numpy computes. It needs ml_dtypes, numpy and tritonclient[grpc].
import sys

import ml_dtypes
import numpy as np
import tritonclient.grpc as grpcclient


def main(address):
    source = np.random.default_rng(3)
    e, g = (source.normal(0, 2, (4, 1000)).astype(ml_dtypes.bfloat16) for _ in range(2))
    inputs = [grpcclient.InferInput(name, list(e.shape), "BF16") for name in ("e", "g")]
    inputs[0].set_data_from_numpy(e)
    inputs[1].set_data_from_numpy(g)
    client = grpcclient.InferenceServerClient(address)
    h = client.infer("swiglu_forward_bf16", inputs, client_timeout=30).as_numpy("h")
    client.close()

    # Releases of the client before ml_dtypes give float32 here, which holds every BF16 value.
    wide, found = e.astype(np.float64), h.astype(np.float64)
    f = (wide / (1 + np.exp(-wide))).astype(ml_dtypes.bfloat16)
    if h.shape != e.shape or not np.allclose(found, f.astype(np.float64) * g.astype(np.float64), rtol=2e-2, atol=1e-6):
        sys.exit("wrong: h is not what numpy computes")
    print(f"bf16.py: {h.size} elements are right")


if __name__ == "__main__":
    main(*sys.argv[1:])
