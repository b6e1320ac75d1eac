#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# Example: arrays in memory that client and server share, so that a call moves no bytes. `python3 shared_memory.py HOST:PORT` ends with
# 0 if the result is what NumPy computes. The server runs on this host, with --system_shared_memory=on.
import sys

import numpy as np

import swiglu


def main(address):
    client = swiglu.Client(address)
    shape, num_bytes = (1000, 1024), 4 * 1000 * 1024
    region = client.system_region(3 * num_bytes)
    e, g, h = (region.array(shape, "float32", offset=i * num_bytes) for i in range(3))
    e[:], g[:] = np.random.randn(2, *shape)
    client.forward(e, g, out=h)

    if not np.allclose(h, e / (1 + np.exp(-e)) * g, rtol=1e-4, atol=1e-5):
        sys.exit("wrong: h is not what NumPy computes")
    print(f"{h.size} elements are right")


if __name__ == "__main__":
    main(*sys.argv[1:])
