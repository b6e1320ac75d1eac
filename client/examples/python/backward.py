#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# Example: backward, the gradients of SwiGLU's two inputs, of FP32 arrays on a server. `python3 backward.py HOST:PORT` ends with 0
# if the answer is what numpy computes. It needs numpy and tritonclient[grpc].
import sys

import numpy as np
import tritonclient.grpc as grpcclient


def backward(client, dw, e, g):
    """h, df and de of three FP32 arrays of one shape. dw is the gradient that reaches h."""
    inputs = []
    for name, array in (("DW", dw), ("e", e), ("g", g)):
        inputs.append(grpcclient.InferInput(name, list(array.shape), "FP32"))
        inputs[-1].set_data_from_numpy(array)
    # Outputs that are not asked for do not travel. Without `outputs` all three come.
    outputs = [grpcclient.InferRequestedOutput(name) for name in ("h", "df", "de")]
    result = client.infer("swiglu_backward_fp32", inputs, outputs=outputs, client_timeout=30)
    return [result.as_numpy(name) for name in ("h", "df", "de")]


def main(address):
    source = np.random.default_rng(2)
    dw, e, g = (source.normal(0, 2, (3, 1000)).astype(np.float32) for _ in range(3))
    client = grpcclient.InferenceServerClient(address)
    h, df, de = backward(client, dw, e, g)
    client.close()

    # df is the gradient of g (up), and de is the gradient of e (gate): those are the reference kernel's names.
    wide = e.astype(np.float64)
    sigmoid = 1 / (1 + np.exp(-wide))
    f = wide * sigmoid
    expected = {"h": f * g, "df": f * dw, "de": dw * g.astype(np.float64) * sigmoid * (1 + wide * (1 - sigmoid))}
    for (name, values), found in zip(expected.items(), (h, df, de)):
        if found.shape != e.shape or not np.allclose(found, values, rtol=1e-5, atol=1e-5):
            sys.exit(f"wrong: {name} is not what numpy computes")
    print(f"backward.py: {e.size} elements are right")


if __name__ == "__main__":
    main(*sys.argv[1:])
