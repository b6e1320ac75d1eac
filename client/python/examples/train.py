#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# Example: an MLP of PyTorch whose SwiGLU runs on a server, in both passes. `python3 train.py HOST:PORT` ends with 0 if the loss has
# become smaller.
import sys

import swiglu
import swiglu.torch
import torch


class Mlp(torch.nn.Module):
    def __init__(self, hidden, intermediate):
        super().__init__()
        self.gate = torch.nn.Linear(hidden, intermediate, bias=False)
        self.up = torch.nn.Linear(hidden, intermediate, bias=False)
        self.down = torch.nn.Linear(intermediate, hidden, bias=False)

    def forward(self, x):
        return self.down(swiglu.torch.swiglu(self.gate(x), self.up(x)))


def step(mlp, optimizer, x, wanted):
    loss = torch.nn.functional.mse_loss(mlp(x), wanted)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def main(address):
    torch.manual_seed(1)
    swiglu.torch.set_default_client(swiglu.Client(address))
    mlp = Mlp(hidden=16, intermediate=64)
    optimizer = torch.optim.Adam(mlp.parameters(), lr=1e-2)
    x = torch.randn(256, 16)
    losses = [step(mlp, optimizer, x, wanted=torch.sin(x)) for _ in range(50)]
    if losses[-1] > losses[0] / 4:
        sys.exit("wrong: the network does not learn")
    print(f"the loss went from {losses[0]:.2f} to {losses[-1]:.2f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
