#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# Example: FP16 arrays in memory that the server on the same host shares, so that none of their bytes travel.
# `python3 shared_memory.py HOST:PORT` ends with 0 if the answer is what numpy computes. The server needs --system_shared_memory=on.
# It needs numpy and tritonclient[grpc].
import secrets
import sys

import numpy as np
import tritonclient.grpc as grpcclient
from tritonclient.utils import shared_memory


def forward(client, e, g):
    """h of two FP16 arrays of one shape, by way of a region that holds e, g and h, one after the other."""
    # Whoever knows the name can use the region.
    name = f"example-{secrets.token_hex(16)}"
    region = shared_memory.create_shared_memory_region(name, f"/{name}", 3 * e.nbytes)
    try:
        client.register_system_shared_memory(name, f"/{name}", 3 * e.nbytes)
        shared_memory.set_shared_memory_region(region, [e, g])
        inputs = [grpcclient.InferInput("e", list(e.shape), "FP16"), grpcclient.InferInput("g", list(g.shape), "FP16")]
        inputs[0].set_shared_memory(name, e.nbytes)
        inputs[1].set_shared_memory(name, g.nbytes, offset=e.nbytes)
        h = grpcclient.InferRequestedOutput("h")
        h.set_shared_memory(name, e.nbytes, offset=2 * e.nbytes)
        client.infer("swiglu_forward_fp16", inputs, outputs=[h], client_timeout=30)
        client.unregister_system_shared_memory(name)
        # A copy, since the memory goes.
        return shared_memory.get_contents_as_numpy(region, e.dtype, list(e.shape), offset=2 * e.nbytes).copy()
    finally:
        shared_memory.destroy_shared_memory_region(region)


def main(address):
    source = np.random.default_rng(4)
    e, g = (source.normal(0, 2, (2, 3, 1000)).astype(np.float16) for _ in range(2))
    client = grpcclient.InferenceServerClient(address)
    h = forward(client, e, g)
    client.close()

    wide = e.astype(np.float64)
    expected = wide / (1 + np.exp(-wide)) * g
    if h.shape != e.shape or not np.allclose(h, expected, rtol=3e-3, atol=1e-6):
        sys.exit("wrong: h is not what numpy computes")
    print(f"shared_memory.py: {h.size} elements are right")


if __name__ == "__main__":
    main(*sys.argv[1:])
