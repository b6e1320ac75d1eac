#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# Example: forward, h = SiLU(e) * g, of FP16 arrays on a server. `python3 forward.py HOST:PORT` ends with 0 if the answer is what
# numpy computes. It needs numpy and tritonclient[grpc].
import sys

import numpy as np
import tritonclient.grpc as grpcclient


def forward(client, e, g):
    """h of two FP16 arrays of one shape. Raises InferenceServerException with the server's code and sentence."""
    inputs = [grpcclient.InferInput("e", list(e.shape), "FP16"), grpcclient.InferInput("g", list(g.shape), "FP16")]
    inputs[0].set_data_from_numpy(e)
    inputs[1].set_data_from_numpy(g)
    # Without a timeout, this client waits for as long as it takes.
    return client.infer("swiglu_forward_fp16", inputs, client_timeout=30).as_numpy("h")


def main(address):
    source = np.random.default_rng(1)
    e, g = (source.normal(0, 2, (2, 3, 1000)).astype(np.float16) for _ in range(2))
    client = grpcclient.InferenceServerClient(address)
    h = forward(client, e, g)
    client.close()

    wide = e.astype(np.float64)
    expected = wide / (1 + np.exp(-wide)) * g
    if h.shape != e.shape or not np.allclose(h, expected, rtol=3e-3, atol=1e-6):
        sys.exit("wrong: h is not what numpy computes")
    print(f"forward.py: {h.size} elements are right")


if __name__ == "__main__":
    main(*sys.argv[1:])
