#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# Example: FP16 arrays of any size. A message has at most 2 GiB - 1 byte, and the server may take less, so the arrays travel in
# chunks. `python3 large.py HOST:PORT` ends with 0 if the answer is what numpy computes. It needs numpy and tritonclient[grpc].
import sys

import numpy as np
import tritonclient.grpc as grpcclient

# The inputs of a message: far below both limits, and large enough that a message costs little beside its bytes.
CHUNK_BYTES = 64 << 20


def forward(client, e, g):
    """h of two FP16 arrays of one shape, in one message."""
    inputs = [grpcclient.InferInput(name, list(array.shape), "FP16") for name, array in (("e", e), ("g", g))]
    inputs[0].set_data_from_numpy(e)
    inputs[1].set_data_from_numpy(g)
    return client.infer("swiglu_forward_fp16", inputs, client_timeout=30).as_numpy("h")


def forward_in_chunks(client, e, g, chunk_bytes=CHUNK_BYTES):
    """The same for arrays of any shape, in messages whose inputs have at most `chunk_bytes` together."""
    h = np.empty(e.shape, e.dtype)
    # Each element of h depends on one of e and one of g, so the dimensions do not matter. reshape copies only arrays that are
    # not contiguous.
    flat_e, flat_g, flat_h = (array.reshape(-1) for array in (e, g, h))
    step = max(1, chunk_bytes // (2 * e.itemsize))
    for first in range(0, e.size, step):
        part = slice(first, first + step)
        flat_h[part] = forward(client, flat_e[part], flat_g[part])
    return h


def main(address):
    source = np.random.default_rng(6)
    e, g = (source.normal(0, 2, (5, 3, 1000)).astype(np.float16) for _ in range(2))
    client = grpcclient.InferenceServerClient(address)
    # Chunks of 16 KiB, to show it with small arrays: 4096 elements of e and of g each.
    h = forward_in_chunks(client, e, g, chunk_bytes=16 << 10)
    client.close()

    wide = e.astype(np.float64)
    expected = wide / (1 + np.exp(-wide)) * g
    if h.shape != e.shape or not np.allclose(h, expected, rtol=3e-3, atol=1e-6):
        sys.exit("wrong: h is not what numpy computes")
    print(f"large.py: {h.size} elements are right")


if __name__ == "__main__":
    main(*sys.argv[1:])
