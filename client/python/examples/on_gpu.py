# SPDX-License-Identifier: Apache-2.0
#
# Tensors of PyTorch on a GPU: `on_gpu.py ADDRESS`. The server runs on this host with --cuda_shared_memory=on.
import sys

import torch

import swiglu


def main(address):
    """One call whose tensors never leave the GPU."""
    client = swiglu.Client(address)
    e, g = torch.randn(2, 1 << 20, device="cuda", dtype=torch.bfloat16)
    h = client.forward(e, g)
    print(f"{h.numel()} elements on {h.device}, {torch.isfinite(h).sum().item()} of them finite")


if __name__ == "__main__":
    main(sys.argv[1])
