#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# Example: SwiGLU of a server inside PyTorch's autograd. `python3 torch_autograd.py HOST:PORT` ends with 0 if values and gradients
# are what PyTorch computes. It needs ml_dtypes, numpy, tritonclient[grpc] and torch. Without torch it says so and checks the
# calls alone, against numpy.
import sys

import ml_dtypes
import numpy as np
import tritonclient.grpc as grpcclient

try:
    import torch
except ImportError:
    torch = None

DATATYPES = {np.dtype(np.float16): "FP16", np.dtype(ml_dtypes.bfloat16): "BF16", np.dtype(np.float32): "FP32"}


def call(client, op, outputs, **arrays):
    """Runs the model of `op`, "forward" or "backward", and of the arrays' dtype. Returns the outputs asked for."""
    inputs = []
    for name, array in arrays.items():
        inputs.append(grpcclient.InferInput(name, list(array.shape), DATATYPES[array.dtype]))
        inputs[-1].set_data_from_numpy(array)
    asked = [grpcclient.InferRequestedOutput(name) for name in outputs]
    result = client.infer(f"swiglu_{op}_{inputs[0].datatype().lower()}", inputs, outputs=asked, client_timeout=30)
    return [result.as_numpy(name) for name in outputs]


if torch:
    def to_numpy(tensor):
        tensor = tensor.detach().contiguous().cpu()
        # PyTorch gives no BF16 to numpy, so the bits go as integers.
        if tensor.dtype == torch.bfloat16:
            return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
        return tensor.numpy()

    def to_torch(array, like):
        if array.dtype == ml_dtypes.bfloat16:
            return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16).to(like.device)
        return torch.from_numpy(array.copy()).to(like.device)

    class SwiGLU(torch.autograd.Function):
        """SwiGLU.apply(client, e, g) is SiLU(e) * g, of any shape in float16, bfloat16 or float32."""

        @staticmethod
        def forward(ctx, client, e, g):
            ctx.client = client
            ctx.save_for_backward(e, g)
            return to_torch(call(client, "forward", ["h"], e=to_numpy(e), g=to_numpy(g))[0], like=e)

        @staticmethod
        def backward(ctx, dw):
            e, g = ctx.saved_tensors
            arrays = {"DW": to_numpy(dw), "e": to_numpy(e), "g": to_numpy(g)}
            de, df = call(ctx.client, "backward", ["de", "df"], **arrays)
            # One gradient for each input: the client has none, de is that of e and df is that of g.
            return None, to_torch(de, like=e), to_torch(df, like=g)


def check_calls(client):
    e, g, dw = (np.random.default_rng(seed).normal(0, 2, (2, 500)).astype(np.float32) for seed in range(3))
    [h] = call(client, "forward", ["h"], e=e, g=g)
    de, df = call(client, "backward", ["de", "df"], DW=dw, e=e, g=g)
    sigmoid = 1 / (1 + np.exp(-e))
    expected = (e * sigmoid * g, dw * g * sigmoid * (1 + e * (1 - sigmoid)), dw * e * sigmoid)
    return all(np.allclose(found, values, rtol=1e-4, atol=1e-5) for found, values in zip((h, de, df), expected))


def check_autograd(client, dtype, tolerance):
    e, g = (torch.randn(2, 500, dtype=dtype, requires_grad=True) for _ in range(2))
    dw = torch.randn(2, 500, dtype=dtype)
    h = SwiGLU.apply(client, e, g)
    expected = torch.nn.functional.silu(e) * g
    pairs = [(h, expected), *zip(torch.autograd.grad(h, (e, g), dw), torch.autograd.grad(expected, (e, g), dw))]
    return all(torch.allclose(found, right, rtol=tolerance, atol=tolerance) for found, right in pairs)


def main(address):
    client = grpcclient.InferenceServerClient(address)
    right = check_calls(client)
    if torch:
        for dtype, tolerance in ((torch.float32, 1e-5), (torch.float16, 1e-2), (torch.bfloat16, 1e-1)):
            right = right and check_autograd(client, dtype, tolerance)
    client.close()
    if not right:
        sys.exit("wrong: values or gradients are not what they should be")
    print("torch_autograd.py: values and gradients are right" if torch else "skipped: autograd, because torch is not installed")


if __name__ == "__main__":
    main(*sys.argv[1:])
