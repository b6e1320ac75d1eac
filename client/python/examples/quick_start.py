#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# Example: forward and backward of NumPy's arrays, in float32 and bfloat16, results in given arrays, and errors.
# `python3 quick_start.py HOST:PORT` ends with 0 if the results are what NumPy computes.
import sys

import ml_dtypes
import numpy as np

import swiglu


def main(address):
    client = swiglu.Client(address)
    e, g = np.random.randn(2, 4, 1000).astype("float32")
    h = client.forward(e, g)

    dw = np.ones_like(h)
    result = client.backward(dw, e, g)
    print("gradients:", result.de.shape, result.df.shape)

    # Into memory of the caller, which may be that of an input.
    client.forward(e, g, out=dw)

    # bfloat16 of ml_dtypes.
    half = client.forward(e.astype(ml_dtypes.bfloat16), g.astype(ml_dtypes.bfloat16))

    try:
        client.forward(e, g[:1])
    except swiglu.Error as error:
        print(error.code.name, "-", error.message)

    right = e / (1 + np.exp(-e)) * g
    if not (np.allclose(h, right, rtol=1e-4, atol=1e-5) and (dw == h).all() and np.allclose(half.astype("float32"), right, rtol=0.05, atol=0.05)):
        sys.exit("wrong: h is not what NumPy computes")


if __name__ == "__main__":
    main(*sys.argv[1:])
